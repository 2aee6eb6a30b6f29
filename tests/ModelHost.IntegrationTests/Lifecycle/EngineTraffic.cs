using System.Globalization;
using System.Net.Http.Headers;
using System.Text.RegularExpressions;
using ModelHost.Docker;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>Asks an engine directly, past the control plane, and numbers the requests: each leaves its line in the engine's log.</summary>
internal sealed partial class EngineTraffic : IDisposable
{
    private readonly HttpClient _engine;
    private int _sent;

    /// <summary>Takes address and key from the container.</summary>
    public EngineTraffic(ContainerDetails container)
    {
        _engine = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{container.Labels["modelhost.engine_port"]}") };
        var key = container.Env.Single(variable => variable.StartsWith("VLLM_API_KEY=", StringComparison.Ordinal))["VLLM_API_KEY=".Length..];
        _engine.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", key);
    }

    /// <summary>Sends the next requests.</summary>
    public async Task SendAsync(int count)
    {
        for (var i = 0; i < count; i++)
            (await _engine.GetAsync(new Uri($"/v1/models?n={++_sent}", UriKind.Relative))).Dispose();
    }

    /// <summary>A chat to the engine itself, which is not awaited by the caller's test.</summary>
    public Task<HttpResponseMessage> PostAsync(string path, HttpContent body) => _engine.PostAsync(new Uri(path, UriKind.Relative), body);

    /// <summary>The engine's own counter.</summary>
    public async Task<long> CounterAsync(string name)
    {
        var page = await _engine.GetStringAsync(new Uri("/metrics", UriKind.Relative));
        return (long)page.Split('\n').Where(line => line.StartsWith(name + "{", StringComparison.Ordinal))
            .Sum(line => double.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture));
    }

    /// <summary>Whether every request has its line, once and in its order.</summary>
    public bool IsWhole(IEnumerable<string> log) => Numbers(log).SequenceEqual(Enumerable.Range(1, _sent));

    /// <summary>Which requests have a line.</summary>
    public static IEnumerable<int> Numbers(IEnumerable<string> log) =>
        log.Select(line => Numbered().Match(line)).Where(match => match.Success).Select(match => int.Parse(match.Groups["n"].Value, CultureInfo.InvariantCulture));

    public void Dispose() => _engine.Dispose();

    [GeneratedRegex(@"GET /v1/models\?n=(?<n>[0-9]+) ")]
    private static partial Regex Numbered();
}
