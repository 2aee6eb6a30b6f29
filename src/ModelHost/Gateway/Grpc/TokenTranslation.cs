using ModelHost.Protocol.Backend;
using Wire = ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>The tokens of texts by way of a backend, answered as LocalAI does.</summary>
internal static class TokenTranslation
{
    /// <summary>Takes a text apart.</summary>
    public static async Task TokenizeAsync(BackendCall call)
    {
        var options = new PredictOptions
        {
            Prompt = call.Request.Text("content") ?? call.Request.Text("prompt") ?? throw RefusedRequestException.Field("content", "is missing"),
            ModelIdentity = call.Identity,
        };
        var result = await call.AskAsync((backend, cancellationToken) => backend.TokenizeAsync(options, null, cancellationToken));
        await call.AnswerAsync(new TokenizeAnswer(result.Tokens), OpenAiAnswerJson.Readable.TokenizeAnswer);
    }

    /// <summary>Puts tokens together.</summary>
    public static async Task DetokenizeAsync(BackendCall call)
    {
        var request = new Wire.DetokenizeRequest();
        request.Tokens.Add(RequestFields.Wholes(call.Request.Required("tokens"), "tokens"));
        var result = await call.AskAsync((backend, cancellationToken) => backend.DetokenizeAsync(request, null, cancellationToken));
        await call.AnswerAsync(new DetokenizeAnswer(result.Content), OpenAiAnswerJson.Readable.DetokenizeAnswer);
    }
}
