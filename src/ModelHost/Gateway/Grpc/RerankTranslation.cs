using System.Text.Json;
using ModelHost.Rpc;
using Wire = ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>Reranking by way of a backend, answered as LocalAI does.</summary>
internal static class RerankTranslation
{
    private const int MostDocuments = 10_000;

    /// <summary>Answers a request.</summary>
    public static async Task ServeAsync(BackendCall call)
    {
        var request = call.Request;
        var documents = request.List("documents").Select((document, i) => Text(document, $"documents[{i}]")).ToArray();
        if (documents.Length is 0 or > MostDocuments)
            throw RefusedRequestException.Field("documents", $"must be a list of 1 to {MostDocuments} texts");
        var asked = new Wire.RerankRequest
        {
            Query = request.RequiredText("query"),
            TopN = request.Whole("top_n", 1) ?? documents.Length,
            ModelIdentity = call.Identity,
        };
        asked.Documents.Add(documents);
        var result = await call.AskAsync((backend, cancellationToken) => backend.RerankAsync(asked, null, cancellationToken));
        if (result.Results.Count > documents.Length || result.Results.Any(item => item.Index < 0 || item.Index >= documents.Length || !float.IsFinite(item.RelevanceScore)))
            throw new RpcException(RpcCode.Internal, "the answer has documents that were not asked about, or no scores");
        call.PromptTokens = Math.Max(0, result.Usage?.PromptTokens ?? 0);
        var total = Math.Max(call.PromptTokens, result.Usage?.TotalTokens ?? 0);
        call.CompletionTokens = total - call.PromptTokens;
        var items = result.Results.OrderByDescending(item => item.RelevanceScore).Take(asked.TopN)
            .Select(item => new RerankItem(item.Index, new RerankDocument(documents[item.Index]), item.RelevanceScore)).ToArray();
        await call.AnswerAsync(new RerankAnswer(call.Model, new RerankUsage(total, call.PromptTokens), items), OpenAiAnswerJson.Readable.RerankAnswer);
    }

    private static string Text(JsonElement document, string at) =>
        document.ValueKind == JsonValueKind.Object ? new RequestFields(document, at).RequiredText("text") : RequestFields.TextOf(document, at);
}
