using System.Net.Sockets;
using System.Text;
using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

/// <summary>Answers that break off, or are none: of every call the failure is this library's own.</summary>
public sealed class BrokenAnswerTests
{
    private const string Head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n";

    private static readonly Dictionary<string, string> Answers = new()
    {
        ["nothing"] = "",
        ["half a status line"] = "HTTP/1.1 20",
        ["half a head"] = Head,
        ["no http"] = "\u0001\u0002\u0003\r\n\r\n",
        ["half a length"] = Head + "Content-Length: 1000\r\n\r\n[{\"Id\":\"a\"",
        ["no chunk"] = Head + "Transfer-Encoding: chunked\r\n\r\n",
        ["half a chunk"] = Head + "Transfer-Encoding: chunked\r\n\r\n64\r\n{\"status\":\"x\"",
        ["half a chunk size"] = Head + "Transfer-Encoding: chunked\r\n\r\n6",
        ["no chunk size"] = Head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        ["no last chunk"] = Head + "Transfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n",
        ["a refusal that breaks off"] = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000\r\n\r\n{\"message\":",
        ["half an object"] = Head + "Content-Length: 10\r\n\r\n{\"status\":",
    };

    private static readonly Dictionary<string, Func<DockerClient, CancellationToken, Task>> Calls = new()
    {
        ["inspect"] = (client, token) => client.InspectContainerAsync("a", token),
        ["list"] = (client, token) => client.ListContainersAsync(new Dictionary<string, string?>(), token),
        ["create"] = (client, token) => client.CreateContainerAsync(new() { Image = "x" }, "a", token),
        ["wait"] = (client, token) => client.WaitContainerAsync("a", token),
        ["stats"] = (client, token) => client.ReadStatsAsync("a", token),
        ["logs"] = async (client, token) => await client.ReadLogsAsync("a", new() { Follow = true, Timestamps = true }, token).ToListAsync(token),
        ["events"] = async (client, token) => await client.WatchEventsAsync(new(), token).ToListAsync(token),
        ["pull"] = (client, token) => client.PullImageAsync("x", "1", _ => { }, token),
        ["load"] = (client, token) => client.LoadImageAsync(new MemoryStream(new byte[100]), token),
        ["image"] = (client, token) => client.InspectImageAsync("x", token),
    };

    // of a log all bytes are text
    public static TheoryData<string, string> Broken => new(
        from call in Calls.Keys
        from answer in Answers.Keys
        where (call, answer) is not ("logs", "half an object")
        select (call, answer));

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [MemberData(nameof(Broken))]
    public async Task An_answer_that_breaks_off_is_a_failure_of_the_engine(string call, string answer)
    {
        await using var engine = new RawEngine(answer);
        using var client = new DockerClient(engine.Endpoint);

        await Should.ThrowAsync<DockerException>(Calls[call](client, Ct));
    }

    [Fact]
    public async Task A_client_that_has_ended_fails_as_an_engine_does_that_is_not_reached()
    {
        await using var engine = new RawEngine("");
        var client = new DockerClient(engine.Endpoint);
        client.Dispose();

        (await Should.ThrowAsync<DockerException>(client.InspectContainerAsync("a", Ct))).StatusCode.ShouldBeNull();
    }

    /// <summary>Says which version it speaks, and to all else what a test tells it, and hangs up.</summary>
    private sealed class RawEngine : IAsyncDisposable
    {
        private readonly string _folder = Directory.CreateTempSubdirectory("mhd").FullName;
        private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        private readonly CancellationTokenSource _over = new();
        private readonly Task _serving;

        public RawEngine(string answer)
        {
            _listener.Bind(new UnixDomainSocketEndPoint(Path.Combine(_folder, "d.sock")));
            _listener.Listen();
            _serving = ServeAsync(answer);
        }

        public Uri Endpoint => new($"unix://{_folder}/d.sock");

        public async ValueTask DisposeAsync()
        {
            await _over.CancelAsync();
            await _serving.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _listener.Dispose();
            _over.Dispose();
            Directory.Delete(_folder, recursive: true);
        }

        private async Task ServeAsync(string answer)
        {
            while (true)
            {
                using var connection = await _listener.AcceptAsync(_over.Token);
                using var stream = new NetworkStream(connection);
                var request = new StringBuilder();
                var buffer = new byte[4096];
                int read;
                while (!IsWhole(request.ToString()) && (read = await stream.ReadAsync(buffer, _over.Token)) > 0)
                    request.Append(Encoding.Latin1.GetString(buffer, 0, read));
                var isPing = request.ToString().StartsWith("GET /_ping", StringComparison.Ordinal);
                await stream.WriteAsync(Encoding.Latin1.GetBytes(
                    isPing ? "HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nConnection: close\r\nContent-Length: 2\r\n\r\nOK" : answer), _over.Token);
                connection.Shutdown(SocketShutdown.Both);
            }
        }

        // all of a body is read: what is left unread would reset the connection
        private static bool IsWhole(string request)
        {
            var end = request.IndexOf("\r\n\r\n", StringComparison.Ordinal);
            if (end < 0)
                return false;
            if (request.Contains("Transfer-Encoding: chunked", StringComparison.OrdinalIgnoreCase))
                return request.EndsWith("0\r\n\r\n", StringComparison.Ordinal);
            var length = request.IndexOf("Content-Length: ", StringComparison.OrdinalIgnoreCase);
            return length < 0 || request.Length - end - 4 >= int.Parse(request[(length + 16)..request.IndexOf('\r', length)], null);
        }
    }
}
