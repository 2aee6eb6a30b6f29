using System.Net;
using System.Net.Http.Json;
using System.Net.NetworkInformation;
using System.Text;
using ModelHost.TestKit;

namespace ModelHost.Tests.Cluster;

/// <summary>Requests that share a connection between gateway and agent: none ends or delays another, and the connection ends with the trust in the node.</summary>
public sealed class SharedConnectionTests
{
    private static readonly (string, string)[] s_long = [("VLLM_SIM_ITL_MS", "20"), ("VLLM_SIM_OUTPUT_TOKENS", "1000000"), ("VLLM_SIM_MODEL_MAX_LEN", "2000000")];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Streams_by_the_hundred_take_a_few_connections()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var id = await cluster.RunAsync(s_long);

        var streams = await Task.WhenAll(Enumerable.Range(0, 150).Select(_ => cluster.StreamAsync(100_000, Ct)));
        var connections = ConnectionsTo(agent);
        foreach (var stream in streams)
            stream.Dispose();
        await cluster.Host.Client.StopModelAsync(id);

        // two for these, and those of the control plane itself
        connections.ShouldBeInRange(2, 10);
    }

    [Fact]
    public async Task Clients_that_come_and_leave_in_crowds_end_nobody_elses_stream()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var id = await cluster.RunAsync(s_long);
        await using var witness = await Witness.StartAsync(cluster);

        for (var crowd = 0; crowd < 6; crowd++)
        {
            using var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct);
            var streams = await Task.WhenAll(Enumerable.Range(0, 90).Select(_ => cluster.StreamAsync(100_000, leave.Token)));
            // half of them leave a stream, the others before the answer
            var asked = Enumerable.Range(0, 90).Select(_ => cluster.StreamAsync(100_000, leave.Token)).ToArray();
            await leave.CancelAsync();
            foreach (var stream in streams)
                stream.Dispose();
            await Task.WhenAll(asked.Select(GivenUpAsync));
        }

        await witness.GoesOnAsync();
        await ServedAsync(cluster, "demo/tiny-chat");
        await cluster.Host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Headers_as_large_as_the_gateway_takes_them_end_nobody_elses_stream()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var id = await cluster.RunAsync(s_long);
        await using var witness = await Witness.StartAsync(cluster);

        foreach (var headers in (string[][])[["User-Agent", new('x', 32_300)], ["traceparent", new('x', 15_000)], [.. Enumerable.Repeat(new[] { "Accept", "text/event-stream" }, 80).SelectMany(pair => pair)]])
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat("demo/tiny-chat", maxTokens: 2)) };
            for (var i = 0; i < headers.Length; i += 2)
                request.Headers.TryAddWithoutValidation(headers[i], headers[i + 1]);
            using var answer = await cluster.Host.Client.SendAsync(request, Ct);
            answer.StatusCode.ShouldBe(HttpStatusCode.OK, headers[0]);
        }

        await witness.GoesOnAsync();
        await cluster.Host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Engine_that_takes_no_bodies_does_not_hold_up_its_neighbour()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var hung = await cluster.RunAsync("demo/hung", 8102);
        var pid = TestCluster.Sidecars(agent).ShouldHaveSingleItem().GetProperty("pid").GetInt32();
        var id = await cluster.RunAsync();
        using var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        await SignalAsync(pid, "STOP");
        try
        {
            // each larger than all buffers between: so many are held back on their way
            var bodies = Enumerable.Range(0, 12).Select(_ => new EndlessBody("""{"model":"demo/hung","messages":[{"role":"user","content":"a""")).ToArray();
            var asked = bodies.Select(body => cluster.Host.Client.PostAsync(new Uri("/v1/chat/completions", UriKind.Relative), body, leave.Token)).ToArray();
            foreach (var body in bodies)
                await StuckAsync(body);

            await ServedAsync(cluster, "demo/tiny-chat");

            asked.ShouldAllBe(request => !request.IsCompleted);
            await leave.CancelAsync();
            await Task.WhenAll(asked.Select(GivenUpAsync));
        }
        finally
        {
            await SignalAsync(pid, "CONT");
        }
        await cluster.Host.Client.StopModelAsync(hung);
        await cluster.Host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Streams_end_with_the_certificates_of_their_node()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        await cluster.RunAsync(s_long);
        await using var witness = await Witness.StartAsync(cluster);

        await cluster.Service.RevokeAsync(agent.Uid, "gpu-1", Ct);

        (await witness.EndAsync()).ShouldContain("\"error\":");
        await Deadline.UntilAsync(() => Task.FromResult(ConnectionsTo(agent)), open => open == 0, what: "the connections to end");
    }

    private static async Task ServedAsync(TestCluster cluster, string model)
    {
        using var served = await cluster.Host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(model, maxTokens: 2), Ct);
        served.StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    private static async Task GivenUpAsync(Task<HttpResponseMessage> asked)
    {
        try
        {
            (await asked).Dispose();
        }
        catch (Exception e) when (e is OperationCanceledException or HttpRequestException)
        {
            // that is what was wanted
        }
    }

    private static int ConnectionsTo(NodeAgent agent) => IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpConnections()
        .Count(connection => connection.RemoteEndPoint.Port == agent.Url.Port && connection.State == TcpState.Established);

    private static async Task StuckAsync(EndlessBody body)
    {
        long before = -1;
        await Deadline.UntilAsync(async () =>
        {
            var (seen, now) = (before, body.Sent);
            before = now;
            await Task.Delay(200, Ct);
            return now > 0 && seen == now;
        }, stuck => stuck, 60, "the body to be held back");
    }

    private static async Task SignalAsync(int pid, string signal)
    {
        using var kill = System.Diagnostics.Process.Start("kill", [$"-{signal}", $"{pid}"]);
        await kill.WaitForExitAsync(Ct);
    }

    /// <summary>A stream that goes on all the while.</summary>
    private sealed class Witness : IAsyncDisposable
    {
        private readonly HttpResponseMessage _answer;
        private readonly Task<string> _reading;
        private int _events;

        private Witness(HttpResponseMessage answer)
        {
            _answer = answer;
            _reading = ReadAsync();
        }

        public static async Task<Witness> StartAsync(TestCluster cluster)
        {
            var witness = new Witness(await cluster.StreamAsync(1_000_000, Ct));
            await witness.GoesOnAsync();
            return witness;
        }

        /// <summary>Waits for further events.</summary>
        public async Task GoesOnAsync()
        {
            var seen = Volatile.Read(ref _events);
            await Deadline.UntilAsync(() => _reading.IsCompleted || Volatile.Read(ref _events) > seen + 5, what: "further events");
            if (_reading.IsCompleted)
                throw new InvalidOperationException($"the stream has ended: {await _reading}");
        }

        /// <summary>Waits for its end.</summary>
        /// <returns>Its last event.</returns>
        public Task<string> EndAsync() => _reading.WaitAsync(TimeSpan.FromSeconds(60), Ct);

        public async ValueTask DisposeAsync()
        {
            _answer.Dispose();
            await ((Task)_reading).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        private async Task<string> ReadAsync()
        {
            using var reader = new StreamReader(await _answer.Content.ReadAsStreamAsync(Ct));
            var last = "";
            while (await reader.ReadLineAsync(Ct) is { } line)
            {
                Interlocked.Increment(ref _events);
                if (line.StartsWith("data: {", StringComparison.Ordinal))
                    last = line;
            }
            return last;
        }
    }

    /// <summary>A body that begins as JSON and goes on for as long as it is taken.</summary>
    private sealed class EndlessBody : HttpContent
    {
        private readonly byte[] _begin;
        private long _sent;

        public EndlessBody(string begin)
        {
            _begin = Encoding.UTF8.GetBytes(begin);
            Headers.ContentType = new("application/json");
        }

        public long Sent => Interlocked.Read(ref _sent);

        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context)
        {
            await stream.WriteAsync(_begin, Ct);
            var more = Enumerable.Repeat((byte)'a', 64 * 1024).ToArray();
            while (true)
            {
                await stream.WriteAsync(more, Ct);
                Interlocked.Add(ref _sent, more.Length);
            }
        }

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }
    }
}
