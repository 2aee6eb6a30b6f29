using System.Collections.Frozen;
using System.Globalization;
using Microsoft.Extensions.Options;
using ModelHost.Agent.Backends;
using ModelHost.Agent.Http;
using ModelHost.Agent.Metering;
using ModelHost.Core.Routing;
using ModelHost.Features.Settings;
using ModelHost.Features.Usage;
using ModelHost.Rpc;

namespace ModelHost.Gateway.Grpc;

/// <summary>
/// Serves <c>/v1</c> by way of backends that speak gRPC: a request is translated into their calls and their answers into OpenAI's shapes. Time, count and end of
/// a call are those of <see cref="EngineForwarder"/>.
/// </summary>
internal sealed partial class GrpcAdapter(
    BackendConnections backends, IOptions<GatewayOptions> options, LiveSettings settings, UsageBook usage, GatewayDrain drain, TimeProvider time, ILogger<GrpcAdapter> logger)
{
    private const int LongestReason = 300; // characters, in the log

    private static readonly FrozenDictionary<string, Func<BackendCall, Task>> Translations = new Dictionary<string, Func<BackendCall, Task>>
    {
        ["/v1/chat/completions"] = ChatTranslation.ServeAsync,
        ["/v1/completions"] = TextTranslation.ServeAsync,
        ["/v1/embeddings"] = EmbeddingTranslation.ServeAsync,
        ["/v1/rerank"] = RerankTranslation.ServeAsync,
        ["/v1/audio/speech"] = SpeechTranslation.ServeAsync,
        ["/v1/audio/transcriptions"] = TranscriptTranslation.ServeAsync,
        ["/v1/audio/translations"] = TranscriptTranslation.ServeAsync,
        ["/tokenize"] = TokenTranslation.TokenizeAsync,
        ["/detokenize"] = TokenTranslation.DetokenizeAsync,
    }.ToFrozenDictionary();

    /// <summary>Answers a request.</summary>
    /// <param name="context">The request.</param>
    /// <param name="kind">The route that it came by.</param>
    /// <param name="route">Where it goes.</param>
    /// <param name="body">Its body.</param>
    public async Task ServeAsync(HttpContext context, GatewayRoute kind, ModelRoute route, RequestBody body)
    {
        using var over = drain.Over.UnsafeRegister(static late => ((HttpContext)late!).Abort(), context);
        using var call = new BackendCall(
            context, kind, route, backends, options.Value, TimeSpan.FromSeconds(settings.Current.GatewayTimeoutSeconds))
        {
            Model = body.Model,
            Body = body,
            CreatedAt = time.GetUtcNow().ToUnixTimeSeconds(),
        };
        var (isRead, isWhole, isRefused) = (false, false, false);
        try
        {
            if (!Translations.TryGetValue(kind.EnginePath, out var translate))
                throw new RefusedRequestException(StatusCodes.Status501NotImplemented, OpenAiErrors.NotSupported(call.Model));
            using var whole = kind.Body == BodyKind.Json
                ? await WholeBody.ReadAsync(body, body.KnownLength ?? context.Request.ContentLength, options.Value.MaxTranslatedBytes, context.RequestAborted) : null;
            call.Request = whole?.Fields ?? default;
            isRead = whole is not null;
            call.Begin();
            await translate(call);
            isWhole = true;
        }
        catch (RefusedRequestException e)
        {
            isRefused = true;
            await RefuseAsync(context, e.Status, e.Error);
        }
        catch (MalformedBodyException e)
        {
            await RefuseAsync(context, StatusCodes.Status400BadRequest, e.Error);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // the client left, and the backend has heard of it
        }
        catch (OperationCanceledException) when (call.IsLate)
        {
            await FailAsync(call, StatusCodes.Status504GatewayTimeout, OpenAiErrors.Timeout(call.Model), "late", null);
        }
        catch (HttpRequestException e)
        {
            await FailAsync(call, StatusCodes.Status502BadGateway, OpenAiErrors.Unreachable(call.Model), "file", e.Message);
        }
        catch (IOException e) when (isRead && !context.RequestAborted.IsCancellationRequested)
        {
            // not the client's body, which is here: a file for the backend or of it
            await FailAsync(call, StatusCodes.Status502BadGateway, OpenAiErrors.BackendFailed(call.Model), "file", e.Message);
        }
        catch (RpcException e)
        {
            isRefused = e.Code is not (RpcCode.Unavailable or RpcCode.DeadlineExceeded) && !context.Response.HasStarted;
            var (status, error) = Told(call.Model, e);
            await FailAsync(call, status, error, e.Code.ToString(), e.Detail);
        }
        finally
        {
            if (call.WasAsked)
            {
                var completion = isWhole && call.CompletionTokens > 0 ? call.CompletionTokens : Math.Max(call.CompletionTokens, call.Pieces);
                usage.Add(UsageCaller.Of(context), route, new UsageCount(1, isWhole || isRefused ? 0 : 1, isRefused ? 1 : 0, call.PromptTokens, completion));
            }
        }
    }

    /// <summary>What a client is told of a failure: what a backend says of its inside stays in the log, but for a request that it refuses.</summary>
    private static (int Status, OpenAiError Error) Told(string model, RpcException failure) =>
        BackendCall.IsMissing(failure) ? (StatusCodes.Status501NotImplemented, OpenAiErrors.NotSupported(model))
        : BackendFailures.IsNotLoaded(failure) ? (StatusCodes.Status503ServiceUnavailable, OpenAiErrors.Loading(model))
        : failure.Code switch
        {
            RpcCode.InvalidArgument or RpcCode.OutOfRange => (StatusCodes.Status400BadRequest, OpenAiErrors.BackendRefused(failure.Detail)),
            RpcCode.Unavailable => (StatusCodes.Status502BadGateway, OpenAiErrors.Unreachable(model)),
            RpcCode.DeadlineExceeded => (StatusCodes.Status504GatewayTimeout, OpenAiErrors.Timeout(model)),
            _ => (StatusCodes.Status502BadGateway, OpenAiErrors.BackendFailed(model)),
        };

    private async Task FailAsync(BackendCall call, int status, OpenAiError error, string failure, string? reason)
    {
        // of a request that it refuses, a backend tells its client, and may tell what was in it
        LogFailed(call.Route.DeploymentId, failure, status == StatusCodes.Status400BadRequest ? null : Short(reason));
        var context = call.Context;
        if (!context.Response.HasStarted)
            await RefuseAsync(context, status, error);
        else if ("text/event-stream".Equals(context.Response.ContentType, StringComparison.Ordinal))
            await context.Response.BodyWriter.WriteAsync(StreamErrors.Events(call.Kind.Shape, error), context.RequestAborted);
        else
            context.Abort(); // what has been sent is not what was asked for: the client has to see that it is not whole
    }

    private static string? Short(string? reason) => reason?[..Math.Min(reason.Length, LongestReason)].ReplaceLineEndings(" ");

    private async Task RefuseAsync(HttpContext context, int status, OpenAiError error)
    {
        if (context.Response.HasStarted)
            return;
        if (status == StatusCodes.Status503ServiceUnavailable)
            context.Response.Headers.RetryAfter = ((int)options.Value.RetryAfter.TotalSeconds).ToString(CultureInfo.InvariantCulture);
        if (status == StatusCodes.Status413PayloadTooLarge)
            context.Response.Headers.Connection = "close"; // the rest of the body is not read
        await OpenAiErrors.WriteAsync(context, status, error);
    }

    [LoggerMessage(1305, LogLevel.Warning, "The backend of deployment {DeploymentId} failed a request: {Failure} ({Reason}).")]
    private partial void LogFailed(int deploymentId, string failure, string? reason);
}
