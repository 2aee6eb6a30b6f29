using ModelHost.Protocol.Backend;
using ModelHost.Rpc;

namespace ModelHost.Agent.Backends;

/// <summary>
/// Asks one gRPC backend. Every call ends with its answer, with an <see cref="RpcException"/> — also when its deadline passes, when the backend goes away and
/// when what it sends is no answer — or with an <see cref="OperationCanceledException"/> when its own token is cancelled; the backend hears of both ends.
/// </summary>
/// <remarks>
/// A backend need not have a method: then the code is <see cref="RpcCode.Unimplemented"/> (<see cref="BackendFailures.IsMissing"/>). One without a model says
/// <see cref="BackendFailures.IsNotLoaded"/>. Fields that this build does not know are kept in the messages.
/// </remarks>
/// <param name="client">Reaches it.</param>
public sealed class BackendClient(RpcClient client)
{
    /// <summary>The longest message of a backend in bytes: 50 MiB, as LocalAI and its backends have it.</summary>
    public const int MaxMessageBytes = 50 * 1024 * 1024;

    /// <summary>Whether the backend says that it is up: that alone is <c>OK</c>.</summary>
    /// <param name="deadline">Time for the answer; null: none.</param>
    /// <param name="cancellationToken">Gives the call up.</param>
    public async Task<bool> HealthAsync(TimeSpan? deadline, CancellationToken cancellationToken) =>
        (await client.UnaryAsync(BackendMethods.Health, new HealthMessage(), deadline, cancellationToken)).Message.Span.SequenceEqual("OK"u8);

    /// <summary>Has the model let go. A backend that has no such method has nothing to let go.</summary>
    /// <inheritdoc cref="HealthAsync"/>
    public Task<Result> FreeAsync(TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.Free, new HealthMessage(), deadline, cancellationToken);

    /// <summary>Loads a model; that it could not be loaded is an answer.</summary>
    /// <param name="options">The model, and how it is loaded.</param>
    /// <param name="deadline">Time for the answer; null: none.</param>
    /// <param name="cancellationToken">Gives the call up.</param>
    public Task<Result> LoadModelAsync(ModelOptions options, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.LoadModel, options, deadline, cancellationToken);

    /// <summary>Answers a prompt at once.</summary>
    /// <param name="request">What is asked.</param>
    /// <param name="deadline">Time for the whole answer; null: none.</param>
    /// <param name="cancellationToken">Gives the call up.</param>
    public Task<Reply> PredictAsync(PredictOptions request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.Predict, request, deadline, cancellationToken);

    /// <summary>Answers a prompt piece by piece. Leaving the pieces before their end gives the call up.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public IAsyncEnumerable<Reply> PredictStreamAsync(PredictOptions request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.ServerStreamAsync(BackendMethods.PredictStream, request, deadline, cancellationToken);

    /// <summary>Embeds a text or tokens.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<EmbeddingResult> EmbeddingAsync(PredictOptions request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.Embedding, request, deadline, cancellationToken);

    /// <summary>Takes a text apart into tokens.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<TokenizationResponse> TokenizeAsync(PredictOptions request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.TokenizeString, request, deadline, cancellationToken);

    /// <summary>Puts tokens together to a text; backends before release 4.8 of LocalAI cannot.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<DetokenizeResponse> DetokenizeAsync(DetokenizeRequest request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.Detokenize, request, deadline, cancellationToken);

    /// <summary>What the backend does and takes; many cannot say.</summary>
    /// <inheritdoc cref="HealthAsync"/>
    public Task<StatusResponse> StatusAsync(TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.Status, new HealthMessage(), deadline, cancellationToken);

    /// <summary>The tokens of what it last worked on; many cannot say.</summary>
    /// <inheritdoc cref="HealthAsync"/>
    public Task<MetricsResponse> MetricsAsync(TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.GetMetrics, new MetricsRequest(), deadline, cancellationToken);

    /// <summary>Orders documents by how well they answer a query.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<RerankResult> RerankAsync(RerankRequest request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.Rerank, request, deadline, cancellationToken);

    /// <summary>Stores values by their keys; that it could not is an answer.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<Result> StoresSetAsync(StoresSetOptions request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.StoresSet, request, deadline, cancellationToken);

    /// <summary>Forgets keys; that it could not is an answer.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<Result> StoresDeleteAsync(StoresDeleteOptions request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.StoresDelete, request, deadline, cancellationToken);

    /// <summary>The values of keys, in the store's own order.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<StoresGetResult> StoresGetAsync(StoresGetOptions request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.StoresGet, request, deadline, cancellationToken);

    /// <summary>The keys most like one, best first.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<StoresFindResult> StoresFindAsync(StoresFindOptions request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.StoresFind, request, deadline, cancellationToken);

    /// <summary>Speaks a text into a file of the backend's machine; that it could not is an answer.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<Result> TtsAsync(TTSRequest request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.Tts, request, deadline, cancellationToken);

    /// <summary>Speaks a text piece by piece; backends before release 4 of LocalAI cannot. Leaving the pieces before their end gives the call up.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public IAsyncEnumerable<Reply> TtsStreamAsync(TTSRequest request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.ServerStreamAsync(BackendMethods.TtsStream, request, deadline, cancellationToken);

    /// <summary>Writes down what is spoken in a file of the backend's machine.</summary>
    /// <inheritdoc cref="PredictAsync"/>
    public Task<TranscriptResult> TranscribeAsync(TranscriptRequest request, TimeSpan? deadline, CancellationToken cancellationToken) =>
        client.UnaryAsync(BackendMethods.AudioTranscription, request, deadline, cancellationToken);
}

/// <summary>What the failures of backends mean.</summary>
public static class BackendFailures
{
    /// <summary>Whether the backend has no such method, or its model cannot do it.</summary>
    public static bool IsMissing(RpcException failure)
    {
        ArgumentNullException.ThrowIfNull(failure);
        return failure.Code == RpcCode.Unimplemented;
    }

    /// <summary>Whether the backend has no model, as one that has begun anew.</summary>
    public static bool IsNotLoaded(RpcException failure)
    {
        ArgumentNullException.ThrowIfNull(failure);
        return failure.Code == RpcCode.FailedPrecondition && failure.Detail.Contains("model not loaded", StringComparison.OrdinalIgnoreCase);
    }

    /// <summary>Whether the backend has another model than the one that was meant.</summary>
    public static bool IsOtherModel(RpcException failure)
    {
        ArgumentNullException.ThrowIfNull(failure);
        return failure.Code == RpcCode.NotFound && failure.Detail.Contains("model identity mismatch", StringComparison.OrdinalIgnoreCase);
    }
}
