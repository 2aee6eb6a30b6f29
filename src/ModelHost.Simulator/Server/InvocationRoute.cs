using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary><c>/invocations</c> of SageMaker: the members of the body say which route is meant. Unlike most of those it needs no key.</summary>
internal sealed class InvocationRoute(IReadOnlyList<Route> routes)
{
    /// <summary>In vLLM's order: the first whose members are all there.</summary>
    private static readonly (string[] Members, string Path, string Request)[] Meanings =
    [
        (["messages"], "/v1/chat/completions", "ChatCompletionRequest"),
        (["prompt"], "/v1/completions", "CompletionRequest"),
        (["input"], "/v1/embeddings", "EmbeddingRequest"),
        (["messages"], "/v1/embeddings", "EmbeddingRequest"),
        (["input"], "/classify", "ClassificationRequest"),
        (["text_1", "text_2"], "/score", "ScoreRequest"),
        (["query", "documents"], "/rerank", "RerankRequest"),
    ];

    /// <summary>Those that this server has, but not embeddings of a classifier.</summary>
    public static InvocationRoute Among(IReadOnlyList<Route> routes, ModelTasks tasks) =>
        new([.. routes.Where(route => route.Path != (tasks.Classifies ? "/v1/embeddings" : "/classify"))]);

    public async Task AnswerAsync(HttpContext context)
    {
        var known = Meanings.Select(meaning => (meaning.Members, Route: routes.FirstOrDefault(route => route.Path == meaning.Path), meaning.Request))
            .Where(meaning => meaning.Route is not null).ToArray();
        var found = await RequestBody.PeekAsync(context, body => Array.Find(known, meaning => Array.TrueForAll(meaning.Members, name => body.Field(name) is not null)).Route);
        if (found is null)
            throw ApiException.Bad("Cannot find suitable handler for request. Expected one of: " +
                $"[{string.Join(", ", known.Select(meaning => $"'{meaning.Request}'").Distinct())}]");
        await found.Handle(context);
    }
}
