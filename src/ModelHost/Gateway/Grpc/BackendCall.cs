using System.Text.Json.Serialization.Metadata;
using ModelHost.Agent.Backends;
using ModelHost.Agent.Http;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Rpc;

namespace ModelHost.Gateway.Grpc;

/// <summary>One request on its way to a gRPC backend and back: its time, and what is counted of it.</summary>
internal sealed class BackendCall : IDisposable
{
    private readonly CancellationTokenSource _late;
    private readonly CancellationTokenSource _ended;
    private readonly BackendConnections _backends;
    private readonly BackendClient _backend;
    private readonly GatewayOptions _options;
    private readonly TimeSpan _total;

    /// <summary>Makes one; nothing is asked yet.</summary>
    /// <param name="context">The request.</param>
    /// <param name="kind">The route that it came by.</param>
    /// <param name="route">Where it goes.</param>
    /// <param name="backends">Reach it.</param>
    /// <param name="options">Times of streams.</param>
    /// <param name="total">Time for a call that is not a stream.</param>
    public BackendCall(HttpContext context, GatewayRoute kind, ModelRoute route, BackendConnections backends, GatewayOptions options, TimeSpan total)
    {
        (Context, Kind, Route, _backends, _backend, _options, _total) = (context, kind, route, backends, backends.To(route), options, total);
        _late = new CancellationTokenSource();
        _ended = CancellationTokenSource.CreateLinkedTokenSource(_late.Token, context.RequestAborted);
    }

    /// <summary>The request.</summary>
    public HttpContext Context { get; }

    /// <summary>The route that it came by.</summary>
    public GatewayRoute Kind { get; }

    /// <summary>Where it goes.</summary>
    public ModelRoute Route { get; }

    /// <summary>What the client calls the model.</summary>
    public required string Model { get; init; }

    /// <summary>What the backend compares with the model that it was loaded with; empty where only its node knows how that is called.</summary>
    public string Identity => ModelSource.IsPath(Route.ModelName) ? "" : Route.ModelName;

    /// <summary>What the client calls the request; empty: nothing.</summary>
    public string CorrelationId => Context.Request.Headers["X-Correlation-ID"].ToString();

    /// <summary>When it was made, in seconds since 1970.</summary>
    public required long CreatedAt { get; init; }

    /// <summary>The fields of its body, which live as long as the call.</summary>
    public RequestFields Request { get; set; }

    /// <summary>The body, where it is a form: it is read as it comes.</summary>
    public required Stream Body { get; init; }

    /// <summary>Cancelled when the client has left.</summary>
    public CancellationToken Aborted => Context.RequestAborted;

    /// <summary>Cancelled when the client has left or the time for the call is over.</summary>
    public CancellationToken Ended => _ended.Token;

    /// <summary>Tokens read.</summary>
    public long PromptTokens { get; set; }

    /// <summary>Tokens written, as far as the backend told them.</summary>
    public long CompletionTokens { get; set; }

    /// <summary>Pieces of output that were passed on: each at least a token.</summary>
    public long Pieces { get; set; }

    /// <summary>What it used, as its client is told.</summary>
    public AnswerUsage Usage(AnswerReader? last = null)
    {
        var usage = new AnswerUsage(PromptTokens, CompletionTokens, PromptTokens + CompletionTokens);
        return last is null || !Context.Request.Headers.ContainsKey("Extra-Usage") ? usage
            : usage with { TimingPromptProcessing = last.PromptMs, TimingTokenGeneration = last.GenerationMs };
    }

    /// <summary>Whether the backend was asked.</summary>
    public bool WasAsked { get; private set; }

    /// <summary>Whether the time for the call was over.</summary>
    public bool IsLate => _late.IsCancellationRequested;

    /// <summary>The time for the whole call begins.</summary>
    public void Begin() => _late.CancelAfter(_total);

    /// <summary>Makes a file on the backend's machine, see <see cref="BackendConnections.FileAsync"/>.</summary>
    public Task<BackendFile> FileAsync(string extension, Stream? content) => _backends.FileAsync(Route, extension, content, Ended);

    /// <summary>Asks once, in the time that is left.</summary>
    public Task<T> AskAsync<T>(Func<BackendClient, CancellationToken, Task<T>> ask)
    {
        WasAsked = true;
        return ask(_backend, Ended);
    }

    /// <summary>
    /// Asks for a stream. In place of the whole time each wait is bounded: that for the first piece, and those between pieces. Time in which the client is slow does
    /// not count.
    /// </summary>
    public async IAsyncEnumerable<T> StreamAsync<T>(Func<BackendClient, CancellationToken, IAsyncEnumerable<T>> ask)
    {
        WasAsked = true;
        _late.CancelAfter(_options.FirstByteTimeout);
        await foreach (var piece in ask(_backend, Ended))
        {
            _late.CancelAfter(Timeout.InfiniteTimeSpan);
            yield return piece;
            _late.CancelAfter(_options.ActivityTimeout);
        }
        _late.CancelAfter(Timeout.InfiniteTimeSpan);
    }

    /// <summary>Whether a failure says that the backend has no such method. Backends in Go that do not have one may say so without the code for it.</summary>
    public static bool IsMissing(RpcException failure) =>
        BackendFailures.IsMissing(failure) || (failure.Code == RpcCode.Unknown && failure.Detail.Contains("unimplemented", StringComparison.OrdinalIgnoreCase));

    /// <summary>Answers with JSON.</summary>
    public async Task AnswerAsync<T>(T answer, JsonTypeInfo<T> type)
    {
        Context.Response.Headers[RequestId.Header] = RequestId.Of(Context);
        await Context.Response.WriteAsJsonAsync(answer, type, cancellationToken: Aborted);
    }

    public void Dispose()
    {
        _ended.Dispose();
        _late.Dispose();
    }
}
