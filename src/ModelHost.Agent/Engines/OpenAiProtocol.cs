using System.Net;
using System.Text;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Engines;

/// <summary>An engine that serves OpenAI's API over HTTP: it loads its model by itself, and has its counters on a Prometheus page.</summary>
internal sealed class OpenAiProtocol(HttpClient http, BackendRecipe recipe, Uri url, string key, TimeProvider time) : IEngineProtocol
{
    private const int MaxPage = 4 * 1024 * 1024;
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(5);

    private readonly EngineRateMeter _meter = new();
    private readonly long _began = time.GetTimestamp();

    /// <summary>A client for all engines.</summary>
    public static HttpClient Client() => new(new SocketsHttpHandler
    {
        UseProxy = false,
        AllowAutoRedirect = false,
        UseCookies = false,
        ConnectTimeout = TimeSpan.FromSeconds(2),
        // vLLM closes idle connections after 5 s
        PooledConnectionIdleTimeout = TimeSpan.FromSeconds(3),
    })
    { Timeout = Deadline, MaxResponseContentBufferSize = MaxPage };

    public async Task<bool> IsReadyAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var answer = await http.GetAsync(new Uri(url, recipe.ReadyPath), HttpCompletionOption.ResponseHeadersRead, cancellationToken);
            return answer.StatusCode == HttpStatusCode.OK;
        }
        catch (Exception e) when (IsSilence(e))
        {
            // a connection that breaks just as the call is given up is no answer either
            cancellationToken.ThrowIfCancellationRequested();
            return false;
        }
    }

    public Task<EngineFailure?> LoadAsync(LaunchSpec spec, CancellationToken cancellationToken) => Task.FromResult<EngineFailure?>(null);

    public async Task<Action<Engine>?> ReadAsync(CancellationToken cancellationToken)
    {
        var (counters, fault) = await CountersAsync(cancellationToken);
        if (counters is not null)
        {
            var metrics = ToMetrics(counters, _meter.Next(counters, time.GetElapsedTime(_began)));
            return engine => engine.Metrics = metrics;
        }
        return fault.Length == 0 ? null : engine =>
        {
            // what it told before stays, with the reason why it is old
            if (engine.Metrics?.Clone() is not { } old)
                return;
            old.Stale = fault;
            engine.Metrics = old;
        };
    }

    public Task FreeAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <returns>The engine's counters; null: it did not tell, for the reason given, or has none.</returns>
    private async Task<(EngineCounters? Counters, string Fault)> CountersAsync(CancellationToken cancellationToken)
    {
        if (recipe.MetricsPath.Length == 0)
            return (null, "");
        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(url, recipe.MetricsPath));
            request.Headers.Authorization = new("Bearer", key);
            using var answer = await http.SendAsync(request, cancellationToken);
            if (answer.StatusCode != HttpStatusCode.OK)
                return (null, $"the engine answered {(int)answer.StatusCode}");
            // as UTF-8 whatever the engine calls it: a name of an encoding that there is not is no reason to know nothing of it
            var counters = EngineCounters.Parse(recipe.Metrics, Encoding.UTF8.GetString(await answer.Content.ReadAsByteArrayAsync(cancellationToken)));
            return (counters, counters is null ? "none of its counters is on its page" : "");
        }
        catch (Exception e) when (IsSilence(e))
        {
            cancellationToken.ThrowIfCancellationRequested();
            return (null, e is OperationCanceledException ? $"no answer within {Deadline.TotalSeconds:0} s" : e.GetBaseException().Message);
        }
    }

    private static bool IsSilence(Exception e) => e is HttpRequestException or OperationCanceledException or IOException;

    private EngineMetrics ToMetrics(EngineCounters counters, EngineRates rates)
    {
        var metrics = new EngineMetrics
        {
            PromptTokens = counters.PromptTokens ?? 0,
            GenerationTokens = counters.GenerationTokens ?? 0,
            Requests = counters.Requests ?? 0,
            ReadAt = time.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0,
        };
        if (counters.RequestsRunning is { } running)
            metrics.RequestsRunning = running;
        if (counters.RequestsWaiting is { } waiting)
            metrics.RequestsWaiting = waiting;
        if (counters.KvCacheUsage is { } usage)
            metrics.KvCacheUsage = usage;
        if (rates.PromptTps is { } promptTps)
            metrics.PromptTps = promptTps;
        if (rates.GenerationTps is { } generationTps)
            metrics.GenerationTps = generationTps;
        if (rates.PromptThroughput is { } promptThroughput)
            metrics.PromptThroughput = promptThroughput;
        if (rates.GenerationThroughput is { } generationThroughput)
            metrics.GenerationThroughput = generationThroughput;
        return metrics;
    }
}
