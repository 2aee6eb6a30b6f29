using System.Text.Json;
using ModelHost.Agent.Http;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;

namespace ModelHost.Gateway.Grpc;

/// <summary>Embeddings by way of a backend, which embeds one text, or the tokens of one, at a time.</summary>
internal static class EmbeddingTranslation
{
    private const int MostInputs = 2048; // as OpenAI has it

    /// <summary>Answers a request.</summary>
    public static async Task ServeAsync(BackendCall call)
    {
        var request = call.Request;
        var isBase64 = request.Text("encoding_format") switch
        {
            null or "float" => false,
            "base64" => true,
            _ => throw RefusedRequestException.Field("encoding_format", "must be float or base64"),
        };
        var dimensions = request.Whole("dimensions", 1);
        var items = new List<EmbeddingItem>();
        foreach (var options in Inputs(request.Required("input")))
        {
            options.ModelIdentity = call.Identity;
            options.CorrelationId = call.CorrelationId;
            var result = await call.AskAsync((backend, cancellationToken) => backend.EmbeddingAsync(options, null, cancellationToken));
            if (result.Layout == EmbeddingResult.Types.Layout.PerToken)
                throw new RefusedRequestException(StatusCodes.Status501NotImplemented, OpenAiErrors.NotSupported(call.Model)); // one vector for each token is no embedding of the text
            if (result.Embeddings.Count == 0 || result.Embeddings.Any(number => !float.IsFinite(number)))
                throw new RpcException(RpcCode.Internal, "the embedding is empty, or has numbers that are none");
            if (dimensions is { } wanted && wanted != result.Embeddings.Count)
                throw RefusedRequestException.Field("dimensions", $"must be {result.Embeddings.Count}, the length of this model's embeddings");
            call.PromptTokens += Math.Max(0, result.PromptTokens > 0 ? result.PromptTokens : result.Tokens);
            items.Add(new EmbeddingItem("embedding", items.Count, new EmbeddingVector(result.Embeddings, isBase64)));
        }
        await call.AnswerAsync(
            new EmbeddingAnswer("list", call.Model, items, new EmbeddingUsage(call.PromptTokens, call.PromptTokens)), OpenAiAnswerJson.Readable.EmbeddingAnswer);
    }

    /// <summary>A text, several, the tokens of one, or of several.</summary>
    private static List<PredictOptions> Inputs(JsonElement input)
    {
        if (input.ValueKind == JsonValueKind.String)
            return [Text(input, "input")];
        if (input.ValueKind != JsonValueKind.Array || input.GetArrayLength() is 0 or > MostInputs)
            throw RefusedRequestException.Field("input", $"must be a text or a list of 1 to {MostInputs} texts or tokens");
        if (input[0].ValueKind == JsonValueKind.Number)
            return [Tokens(input, "input")];
        return [.. input.EnumerateArray().Select((item, i) => item.ValueKind == JsonValueKind.Array ? Tokens(item, $"input[{i}]") : Text(item, $"input[{i}]"))];
    }

    private static PredictOptions Text(JsonElement value, string at) => RequestFields.TextOf(value, at) is { Length: > 0 } text
        ? new PredictOptions { Embeddings = text } : throw RefusedRequestException.Field(at, "must not be empty");

    private static PredictOptions Tokens(JsonElement value, string at)
    {
        var options = new PredictOptions();
        options.EmbeddingTokens.Add(RequestFields.Wholes(value, at));
        return options.EmbeddingTokens.Count > 0 ? options : throw RefusedRequestException.Field(at, "must not be empty");
    }
}
