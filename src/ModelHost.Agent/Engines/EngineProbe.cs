using System.Net;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;

namespace ModelHost.Agent.Engines;

/// <summary>Asks engines on this machine whether they serve, and for their counters.</summary>
internal sealed class EngineProbe : IDisposable
{
    private const int MaxPage = 4 * 1024 * 1024;
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(5);

    private readonly HttpClient _http = new(new SocketsHttpHandler
    {
        UseProxy = false,
        AllowAutoRedirect = false,
        UseCookies = false,
        ConnectTimeout = TimeSpan.FromSeconds(2),
        // vLLM closes idle connections after 5 s
        PooledConnectionIdleTimeout = TimeSpan.FromSeconds(3),
    })
    { Timeout = Deadline, MaxResponseContentBufferSize = MaxPage };

    /// <summary>Whether the engine serves now.</summary>
    public async Task<bool> IsReadyAsync(BackendRecipe recipe, int port, CancellationToken cancellationToken)
    {
        try
        {
            using var answer = await _http.GetAsync(Url(port, recipe.ReadyPath), HttpCompletionOption.ResponseHeadersRead, cancellationToken);
            return answer.StatusCode == HttpStatusCode.OK;
        }
        catch (Exception e) when (IsSilence(e, cancellationToken))
        {
            return false;
        }
    }

    /// <summary>The engine's counters; null: it did not tell, for the reason given, or has none.</summary>
    public async Task<(EngineCounters? Counters, string Fault)> CountersAsync(BackendRecipe recipe, int port, string key, CancellationToken cancellationToken)
    {
        if (recipe.MetricsPath.Length == 0)
            return (null, "");
        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, Url(port, recipe.MetricsPath));
            request.Headers.Authorization = new("Bearer", key);
            using var answer = await _http.SendAsync(request, cancellationToken);
            if (answer.StatusCode != HttpStatusCode.OK)
                return (null, $"the engine answered {(int)answer.StatusCode}");
            var counters = EngineCounters.Parse(recipe.Metrics, await answer.Content.ReadAsStringAsync(cancellationToken));
            return (counters, counters is null ? "none of its counters is on its page" : "");
        }
        catch (Exception e) when (IsSilence(e, cancellationToken))
        {
            return (null, e is OperationCanceledException ? $"no answer within {Deadline.TotalSeconds:0} s" : e.GetBaseException().Message);
        }
    }

    public void Dispose() => _http.Dispose();

    private static bool IsSilence(Exception e, CancellationToken cancellationToken) =>
        !cancellationToken.IsCancellationRequested && e is HttpRequestException or OperationCanceledException or IOException;

    private static Uri Url(int port, string path) => new($"http://127.0.0.1:{port}{path}");
}
