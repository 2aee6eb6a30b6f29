using System.Net;
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
        catch (Exception e) when (IsSilence(e, cancellationToken))
        {
            return false;
        }
    }

    public Task<EngineFailure?> LoadAsync(LaunchSpec spec, CancellationToken cancellationToken) => Task.FromResult<EngineFailure?>(null);

    public async Task<Action<Engine>?> ReadAsync(CancellationToken cancellationToken)
    {
        if (await CountersAsync(cancellationToken) is not { } counters)
            return null;
        var rates = _meter.Next(counters, time.GetElapsedTime(_began));
        return engine => engine.Metrics = ToMetrics(counters, rates);
    }

    public Task FreeAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    private async Task<EngineCounters?> CountersAsync(CancellationToken cancellationToken)
    {
        if (recipe.MetricsPath.Length == 0)
            return null;
        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(url, recipe.MetricsPath));
            request.Headers.Authorization = new("Bearer", key);
            using var answer = await http.SendAsync(request, cancellationToken);
            return answer.StatusCode == HttpStatusCode.OK
                ? EngineCounters.Parse(recipe.Metrics, await answer.Content.ReadAsStringAsync(cancellationToken)) : null;
        }
        catch (Exception e) when (IsSilence(e, cancellationToken))
        {
            return null;
        }
    }

    private static bool IsSilence(Exception e, CancellationToken cancellationToken) =>
        !cancellationToken.IsCancellationRequested && e is HttpRequestException or OperationCanceledException or IOException;

    private static EngineMetrics ToMetrics(EngineCounters counters, EngineRates rates)
    {
        var metrics = new EngineMetrics
        {
            PromptTokens = counters.PromptTokens ?? 0,
            GenerationTokens = counters.GenerationTokens ?? 0,
            Requests = counters.Requests ?? 0,
        };
        if (counters.RequestsRunning is { } running)
            metrics.RequestsRunning = running;
        if (counters.RequestsWaiting is { } waiting)
            metrics.RequestsWaiting = waiting;
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
