using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using Google.Protobuf;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Gateway;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;
using ModelHost.TestKit;
using DetokenizeRequest = ModelHost.Protocol.Backend.DetokenizeRequest;
using RerankRequest = ModelHost.Protocol.Backend.RerankRequest;

namespace ModelHost.Tests.Gateway.Grpc;

/// <summary>A gRPC backend that answers as a test says, routed to under a name, on a real Kestrel.</summary>
internal sealed class TestBackend : IAsyncDisposable
{
    private const string Service = "backend.Backend";
    private EchoServer _server = null!;

    /// <summary>What it was asked, in order.</summary>
    public ConcurrentQueue<IMessage> Asked { get; } = new();

    /// <summary>Calls that were given up before their end.</summary>
    public int GivenUp;

    /// <summary>Answers prompts, whole and in pieces.</summary>
    public Func<PredictOptions, CancellationToken, IAsyncEnumerable<Reply>> Answer { get; set; } = (_, _) => Replies(Piece("Hello"), Piece(" there", tokens: 2));

    public Func<PredictOptions, EmbeddingResult> Embed { get; set; } = _ => throw new RpcException(RpcCode.Unimplemented, "no embeddings");

    public Func<RerankRequest, RerankResult> Rank { get; set; } = _ => throw new RpcException(RpcCode.Unimplemented, "no ranks");

    public Func<PredictOptions, TokenizationResponse> Split { get; set; } = _ => throw new RpcException(RpcCode.Unimplemented, "no tokens");

    public Func<DetokenizeRequest, DetokenizeResponse> Join { get; set; } = _ => throw new RpcException(RpcCode.Unimplemented, "no text");

    public Func<TTSRequest, Result> Speak { get; set; } = _ => throw new RpcException(RpcCode.Unimplemented, "no speech");

    public Func<TTSRequest, CancellationToken, IAsyncEnumerable<Reply>> SpeakPieces { get; set; } = (_, _) => throw new RpcException(RpcCode.Unimplemented, "no speech");

    public Func<TranscriptRequest, TranscriptResult> Write { get; set; } = _ => throw new RpcException(RpcCode.Unimplemented, "no ears");

    /// <summary>Where it listens.</summary>
    public Uri Address => _server.Address;

    /// <summary>What it was asked last.</summary>
    public PredictOptions Prediction => Asked.OfType<PredictOptions>().Last();

    /// <summary>Starts one and routes <paramref name="model"/> to it.</summary>
    public static async Task<TestBackend> StartAsync(ControlPlane host, string model = "m", GenerationDefaults? defaults = null)
    {
        var backend = new TestBackend();
        backend._server = await EchoServer.StartAsync(map: app =>
        {
            app.MapUnary(Method("Predict", PredictOptions.Parser, Reply.Parser), (request, _, token) => backend.WholeAsync(request, token));
            app.MapServerStream(Method("PredictStream", PredictOptions.Parser, Reply.Parser), (request, _, token) => backend.PiecesAsync(request, backend.Answer(request, token), token));
            app.MapUnary(Method("Embedding", PredictOptions.Parser, EmbeddingResult.Parser), (request, _, _) => backend.Once(request, backend.Embed));
            app.MapUnary(Method("Rerank", RerankRequest.Parser, RerankResult.Parser), (request, _, _) => backend.Once(request, backend.Rank));
            app.MapUnary(Method("TokenizeString", PredictOptions.Parser, TokenizationResponse.Parser), (request, _, _) => backend.Once(request, backend.Split));
            app.MapUnary(Method("Detokenize", DetokenizeRequest.Parser, DetokenizeResponse.Parser), (request, _, _) => backend.Once(request, backend.Join));
            app.MapUnary(Method("TTS", TTSRequest.Parser, Result.Parser), (request, _, _) => backend.Once(request, backend.Speak));
            app.MapServerStream(Method("TTSStream", TTSRequest.Parser, Reply.Parser), (request, _, token) => backend.PiecesAsync(request, backend.SpeakPieces(request, token), token));
            app.MapUnary(Method("AudioTranscription", TranscriptRequest.Parser, TranscriptResult.Parser), (request, _, _) => backend.Once(request, backend.Write));
        });
        Route(host, backend.Address, model, defaults);
        return backend;
    }

    /// <summary>Routes a name to an address.</summary>
    public static void Route(ControlPlane host, Uri address, string model = "m", GenerationDefaults? defaults = null)
    {
        var routes = host.Services.GetRequiredService<RouteSource>();
        routes.Publish(-3,
        [
            new ModelRoute(-3, DeploymentStatus.Running, model, "org/model", [], "tests", DateTimeOffset.UnixEpoch, address, null)
            {
                DeploymentUid = "test-backend",
                RunId = Guid.NewGuid().ToString("N"),
                Protocol = "grpc",
                Defaults = defaults ?? GenerationDefaults.None,
            },
        ], routes.Mark());
    }

    /// <summary>A piece of text.</summary>
    public static Reply Piece(string text, int tokens = 1, int promptTokens = 3) =>
        new() { Message = ByteString.CopyFromUtf8(text), Tokens = tokens, PromptTokens = promptTokens };

    /// <summary>Replies, one after another.</summary>
    public static async IAsyncEnumerable<Reply> Replies(params Reply[] replies)
    {
        foreach (var reply in replies)
        {
            await Task.Yield();
            yield return reply;
        }
    }

    /// <summary>Replies, and then silence until the call ends.</summary>
    public static async IAsyncEnumerable<Reply> ThenSilence([EnumeratorCancellation] CancellationToken cancellationToken, params Reply[] replies)
    {
        foreach (var reply in replies)
            yield return reply;
        await Task.Delay(Timeout.Infinite, cancellationToken);
    }

    /// <summary>Replies, and then an end that is none.</summary>
    public static async IAsyncEnumerable<Reply> ThenFail(RpcCode code, string detail, params Reply[] replies)
    {
        foreach (var reply in replies)
        {
            await Task.Yield();
            yield return reply;
        }
        throw new RpcException(code, detail);
    }

    public async ValueTask DisposeAsync() => await _server.DisposeAsync();

    private async Task<Reply> WholeAsync(PredictOptions request, CancellationToken cancellationToken)
    {
        var whole = new Reply();
        await foreach (var piece in PiecesAsync(request, Answer(request, cancellationToken), cancellationToken))
        {
            // as generators of the field merge them: text goes on, counts are those of the last
            var message = whole.Message.Span.ToArray().Concat(piece.Message.ToByteArray()).ToArray();
            whole.MergeFrom(piece);
            whole.Message = ByteString.CopyFrom(message);
        }
        return whole;
    }

    private async IAsyncEnumerable<Reply> PiecesAsync(IMessage request, IAsyncEnumerable<Reply> pieces, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        Asked.Enqueue(request);
        using var left = cancellationToken.Register(() => Interlocked.Increment(ref GivenUp));
        await foreach (var piece in pieces.WithCancellation(cancellationToken))
            yield return piece;
    }

    private Task<TResponse> Once<TRequest, TResponse>(TRequest request, Func<TRequest, TResponse> answer) where TRequest : IMessage
    {
        Asked.Enqueue(request);
        return Task.FromResult(answer(request));
    }

    private static RpcMethod<TRequest, TResponse> Method<TRequest, TResponse>(string name, MessageParser<TRequest> requests, MessageParser<TResponse> responses)
        where TRequest : class, IMessage<TRequest>
        where TResponse : class, IMessage<TResponse> => new(Service, name, requests, responses);
}
