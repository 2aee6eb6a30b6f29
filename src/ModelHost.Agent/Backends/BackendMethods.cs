using Google.Protobuf;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;

namespace ModelHost.Agent.Backends;

/// <summary>The methods of <c>backend.Backend</c>.</summary>
internal static class BackendMethods
{
    public static RpcMethod<HealthMessage, Reply> Health { get; } = Method("Health", HealthMessage.Parser, Reply.Parser);
    public static RpcMethod<HealthMessage, Result> Free { get; } = Method("Free", HealthMessage.Parser, Result.Parser);
    public static RpcMethod<ModelOptions, Result> LoadModel { get; } = Method("LoadModel", ModelOptions.Parser, Result.Parser);
    public static RpcMethod<PredictOptions, Reply> Predict { get; } = Method("Predict", PredictOptions.Parser, Reply.Parser);
    public static RpcMethod<PredictOptions, Reply> PredictStream { get; } = Method("PredictStream", PredictOptions.Parser, Reply.Parser);
    public static RpcMethod<PredictOptions, EmbeddingResult> Embedding { get; } = Method("Embedding", PredictOptions.Parser, EmbeddingResult.Parser);
    public static RpcMethod<PredictOptions, TokenizationResponse> TokenizeString { get; } = Method("TokenizeString", PredictOptions.Parser, TokenizationResponse.Parser);
    public static RpcMethod<DetokenizeRequest, DetokenizeResponse> Detokenize { get; } = Method("Detokenize", DetokenizeRequest.Parser, DetokenizeResponse.Parser);
    public static RpcMethod<HealthMessage, StatusResponse> Status { get; } = Method("Status", HealthMessage.Parser, StatusResponse.Parser);
    public static RpcMethod<MetricsRequest, MetricsResponse> GetMetrics { get; } = Method("GetMetrics", MetricsRequest.Parser, MetricsResponse.Parser);
    public static RpcMethod<RerankRequest, RerankResult> Rerank { get; } = Method("Rerank", RerankRequest.Parser, RerankResult.Parser);
    public static RpcMethod<StoresSetOptions, Result> StoresSet { get; } = Method("StoresSet", StoresSetOptions.Parser, Result.Parser);
    public static RpcMethod<StoresDeleteOptions, Result> StoresDelete { get; } = Method("StoresDelete", StoresDeleteOptions.Parser, Result.Parser);
    public static RpcMethod<StoresGetOptions, StoresGetResult> StoresGet { get; } = Method("StoresGet", StoresGetOptions.Parser, StoresGetResult.Parser);
    public static RpcMethod<StoresFindOptions, StoresFindResult> StoresFind { get; } = Method("StoresFind", StoresFindOptions.Parser, StoresFindResult.Parser);
    public static RpcMethod<TTSRequest, Result> Tts { get; } = Method("TTS", TTSRequest.Parser, Result.Parser);
    public static RpcMethod<TTSRequest, Reply> TtsStream { get; } = Method("TTSStream", TTSRequest.Parser, Reply.Parser);

    public static RpcMethod<TranscriptRequest, TranscriptResult> AudioTranscription { get; } =
        Method("AudioTranscription", TranscriptRequest.Parser, TranscriptResult.Parser);

    private static RpcMethod<TRequest, TResponse> Method<TRequest, TResponse>(string name, MessageParser<TRequest> requests, MessageParser<TResponse> responses)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse> => new("backend.Backend", name, requests, responses);
}
