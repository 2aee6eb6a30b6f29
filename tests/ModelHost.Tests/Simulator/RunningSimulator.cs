using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;
using ModelHost.Simulator;

namespace ModelHost.Tests.Simulator;

/// <summary>A simulated server in this process, on a free loopback port.</summary>
internal sealed class RunningSimulator : IAsyncDisposable
{
    // whatever is waited for comes, late on a machine that stands still for seconds
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    private readonly CancellationTokenSource _stop = new();
    private readonly RecordingWriter _output = new();
    private readonly RecordingWriter _error = new();

    private RunningSimulator(string[] arguments, Dictionary<string, string> environment)
    {
        Server = new(arguments, environment, _output, _error, TimeProvider.System);
        Exit = Server.RunAsync(_stop.Token);
    }

    public SimulatedServer Server { get; }

    public Task<int> Exit { get; }

    public HttpClient Http { get; } = new() { Timeout = Patience };

    public string Output => _output.ToString();

    public string Error => _error.ToString();

    public static Task<RunningSimulator> StartAsync(params string[] flags) => StartWithAsync([], flags);

    public static async Task<RunningSimulator> StartWithAsync(Dictionary<string, string> environment, params string[] flags)
    {
        var simulator = Begin(environment, flags);
        simulator.Http.BaseAddress = new Uri($"http://{await simulator.Server.Ready.WaitAsync(Patience)}");
        return simulator;
    }

    /// <summary>Starts a server that need not become ready.</summary>
    public static RunningSimulator Begin(Dictionary<string, string> environment, params string[] flags)
    {
        var all = new Dictionary<string, string> { ["VLLM_SIM_LOAD_SECONDS"] = "0" };
        foreach (var (name, value) in environment)
            all[name] = value;
        string[] arguments = [.. flags, "--host", "127.0.0.1", .. flags.Contains("--port") ? Array.Empty<string>() : ["--port", "0"]];
        return new(arguments, all);
    }

    /// <summary>Runs a server that is expected to end by itself.</summary>
    public static async Task<(int ExitCode, string Output, string Error)> RunAsync(Dictionary<string, string> environment, params string[] flags)
    {
        await using var simulator = Begin(environment, flags);
        var code = await simulator.Exit.WaitAsync(Patience);
        return (code, simulator.Output, simulator.Error);
    }

    public Task<HttpResponseMessage> PostAsync(string path, string body) =>
        PostAsync(path, body, HttpCompletionOption.ResponseContentRead, TestContext.Current.CancellationToken);

    public Task<HttpResponseMessage> PostAsync(string path, string body, HttpCompletionOption read, CancellationToken cancellationToken)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new StringContent(body, Encoding.UTF8) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        return Http.SendAsync(request, read, cancellationToken);
    }

    public async Task<(int Status, JsonNode Body)> SendAsync(string path, string body)
    {
        using var response = await PostAsync(path, body);
        return ((int)response.StatusCode, JsonNode.Parse(await response.Content.ReadAsStringAsync())!);
    }

    /// <summary>The events of a stream, without <c>data: </c>.</summary>
    public async Task<string[]> StreamAsync(string path, string body)
    {
        using var response = await PostAsync(path, body);
        response.Content.Headers.ContentType!.MediaType.ShouldBe("text/event-stream");
        var text = await response.Content.ReadAsStringAsync();
        return [.. text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries).Select(line => line["data: ".Length..])];
    }

    /// <summary>The named events of a stream.</summary>
    public async Task<(string Name, string Data)[]> EventsAsync(string path, string body)
    {
        using var response = await PostAsync(path, body);
        return await EventsAsync(response);
    }

    /// <inheritdoc cref="EventsAsync(string, string)"/>
    public static async Task<(string Name, string Data)[]> EventsAsync(HttpResponseMessage response)
    {
        var text = await response.Content.ReadAsStringAsync();
        response.Content.Headers.ContentType!.MediaType.ShouldBe("text/event-stream", text);
        return [.. text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries).Select(entry => entry.Split('\n'))
            .Select(lines => (lines[0]["event: ".Length..], lines[1]["data: ".Length..]))];
    }

    public async Task<string[]> MetricsAsync() => (await Http.GetStringAsync("/metrics")).Split('\n');

    /// <summary>The value of one series, written as the page writes it.</summary>
    public async Task<double> MetricAsync(string series) =>
        double.Parse((await MetricsAsync()).Single(line => line.StartsWith(series + " ", StringComparison.Ordinal))[(series.Length + 1)..],
            System.Globalization.CultureInfo.InvariantCulture);

    public Task<int> StopAsync()
    {
        _stop.Cancel();
        return Exit.WaitAsync(Patience);
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        Http.Dispose();
        _stop.Dispose();
    }

    /// <summary>A writer that may be read while it is written to.</summary>
    private sealed class RecordingWriter : StringWriter
    {
        private readonly Lock _gate = new();

        public override void Write(char value)
        {
            lock (_gate)
                base.Write(value);
        }

        public override void Write(string? value)
        {
            lock (_gate)
                base.Write(value);
        }

        public override string ToString()
        {
            lock (_gate)
                return base.ToString();
        }
    }
}
