using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary><c>/score</c> and <c>/rerank</c>: scores from 0 to 1 that depend on the two texts alone; a text scores 1 with itself.</summary>
internal sealed class ScoreRoutes(ServerOptions options, RequestParser parser, Engine engine, TimeProvider time)
{
    private static readonly (string First, string Second)[] Pairs =
        [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")];

    public async Task ScoreAsync(HttpContext context)
    {
        var (name, firsts, seconds) = await RequestBody.ReadAsync(context, body =>
        {
            var pair = Array.Find(Pairs, names => body.Field(names.First) is not null && body.Field(names.Second) is not null);
            if (pair.First is null)
                throw ApiException.Shape("body.text_1", "missing", "Field required");
            var (left, right) = (RequestParser.Prompts(body, pair.First), RequestParser.Prompts(body, pair.Second));
            var model = parser.Model(body).Name;
            return left.Count == 1 || left.Count == right.Count ? (model, left, right)
                : throw ApiException.Bad("Input lengths must be either 1:1, 1:N or N:N");
        });
        if (await RunAsync(context, name, firsts, seconds) is not { } tokens)
            return;
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteString("id"u8, $"embd-{Guid.NewGuid():N}");
            json.WriteString("object"u8, "list"u8);
            json.WriteNumber("created"u8, time.GetUtcNow().ToUnixTimeSeconds());
            json.WriteString("model"u8, name);
            json.WriteStartArray("data"u8);
            for (var i = 0; i < seconds.Count; i++)
            {
                json.WriteStartObject();
                json.WriteNumber("index"u8, i);
                json.WriteString("object"u8, "score"u8);
                json.WriteNumber("score"u8, Score(firsts[firsts.Count == 1 ? 0 : i].Text, seconds[i].Text));
                json.WriteEndObject();
            }
            json.WriteEndArray();
            Usage(json, tokens);
            json.WriteNumber("completion_tokens"u8, 0);
            json.WriteNull("prompt_tokens_details"u8);
            json.WriteEndObject();
        });
    }

    public async Task RerankAsync(HttpContext context)
    {
        var (name, query, documents, top) = await RequestBody.ReadAsync(context, body =>
        {
            var (one, many) = (RequestParser.Prompts(body, "query"), RequestParser.Prompts(body, "documents"));
            return (parser.Model(body).Name, one, many, body.Integer("top_n") ?? 0);
        });
        if (await RunAsync(context, name, query, documents) is not { } tokens)
            return;
        var results = documents.Select((document, index) => (document.Text, Index: index, Score: Score(query[0].Text, document.Text)))
            .OrderByDescending(result => result.Score).Take(top > 0 ? top : documents.Count).ToArray();
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteString("id"u8, $"rerank-{Guid.NewGuid():N}");
            json.WriteString("model"u8, name);
            Usage(json, tokens);
            json.WriteEndObject();
            json.WriteStartArray("results"u8);
            foreach (var (text, index, score) in results)
            {
                json.WriteStartObject();
                json.WriteNumber("index"u8, index);
                json.WriteStartObject("document"u8);
                json.WriteString("text"u8, text);
                json.WriteEndObject();
                json.WriteNumber("relevance_score"u8, score);
                json.WriteEndObject();
            }
            json.WriteEndArray();
        });
    }

    /// <summary>Lets the engine take its time over all pairs.</summary>
    /// <returns>The tokens of the pairs; null when the client is gone.</returns>
    private async Task<int?> RunAsync(HttpContext context, string name, IReadOnlyList<Prompt> firsts, IReadOnlyList<Prompt> seconds)
    {
        var pairs = seconds.Select((second, i) => firsts[firsts.Count == 1 ? 0 : i] is var first
            ? new Prompt(first.Text + second.Text, first.Tokens + second.Tokens) : default).ToArray();
        foreach (var pair in pairs)
            parser.CheckLength(pair, 0);
        using var generation = engine.Start(
            new GenerationRequest { Model = name, Prompts = pairs, MaxTokens = 1, IgnoreEndOfText = true }, context.RequestAborted);
        await generation.RunAsync();
        if (generation.Outcome == Outcome.EngineDead)
            throw ApiException.EngineDead();
        return generation.Outcome == Outcome.Disconnected ? null : generation.Request.PromptTokens;
    }

    private static void Usage(Utf8JsonWriter json, int tokens)
    {
        json.WriteStartObject("usage"u8);
        json.WriteNumber("prompt_tokens"u8, tokens);
        json.WriteNumber("total_tokens"u8, tokens);
    }

    private double Score(string first, string second)
    {
        var seed = TextSource.Hash(options.Model, (ulong)options.Seed);
        return first == second ? 1 : Math.Round(TextSource.Hash(second, TextSource.Hash(first, seed)) % 10_000 / 10_000.0, 4);
    }
}
