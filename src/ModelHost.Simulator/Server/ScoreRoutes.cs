using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary><c>/score</c> and <c>/rerank</c>: scores from 0 to 1 that depend on the two texts alone; a text scores 1 with itself.</summary>
internal sealed class ScoreRoutes(ServerOptions options, RequestParser parser, PoolingAnswers answers)
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
        await answers.ListAsync(context, "embd-", name, Joined(firsts, seconds), (json, index) =>
        {
            json.WriteString("object"u8, "score"u8);
            json.WriteNumber("score"u8, Score(firsts[firsts.Count == 1 ? 0 : index].Text, seconds[index].Text));
        });
    }

    public async Task RerankAsync(HttpContext context)
    {
        var (name, query, documents, top) = await RequestBody.ReadAsync(context, body =>
        {
            var (one, many) = (RequestParser.Prompts(body, "query"), RequestParser.Prompts(body, "documents"));
            return (parser.Model(body).Name, one, many, body.Integer("top_n") ?? 0);
        });
        if (await answers.RunAsync(context, name, Joined(query, documents)) is not { } tokens)
            return;
        var results = documents.Select((document, index) => (document.Text, Index: index, Score: Score(query[0].Text, document.Text)))
            .OrderByDescending(result => result.Score).Take(top > 0 ? top : documents.Count).ToArray();
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteString("id"u8, $"rerank-{Guid.NewGuid():N}");
            json.WriteString("model"u8, name);
            PoolingAnswers.Usage(json, tokens);
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

    /// <summary>The pairs, as the engine sees them.</summary>
    private static Prompt[] Joined(IReadOnlyList<Prompt> firsts, IReadOnlyList<Prompt> seconds) =>
        [.. seconds.Select((second, i) => firsts[firsts.Count == 1 ? 0 : i] is var first ? new Prompt(first.Text + second.Text, first.Tokens + second.Tokens) : default)];

    private double Score(string first, string second)
    {
        var seed = TextSource.Hash(options.Model, (ulong)options.Seed);
        return first == second ? 1 : Math.Round(TextSource.Hash(second, TextSource.Hash(first, seed)) % 10_000 / 10_000.0, 4);
    }
}
