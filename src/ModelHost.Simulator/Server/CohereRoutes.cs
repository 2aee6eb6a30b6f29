using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary><c>/v2/embed</c>: embeddings in the form of Cohere.</summary>
internal sealed class CohereRoutes(RequestParser parser, PoolingAnswers answers, ModelTasks tasks)
{
    private const int DefaultDimensions = 1024;

    /// <summary>Numbers in the vectors of one request: this answer is made in memory as a whole.</summary>
    private const long MaxNumbers = 4 << 20;

    private static readonly string[] Types = ["float", "binary", "ubinary", "base64"];

    public async Task EmbedAsync(HttpContext context)
    {
        var (model, texts, types, dimensions) = await RequestBody.ReadAsync(context, body =>
        {
            if (body.Text("model") is null)
                throw ApiException.Shape("body.model", "missing", "Field required");
            var inputs = Texts(body);
            var wanted = Wanted(body);
            if (body.Text("truncate") is { } truncate && truncate is not ("NONE" or "START" or "END"))
                throw ApiException.Shape("body.truncate", "literal_error", "Input should be 'NONE', 'START' or 'END'");
            if (!tasks.Embeds)
                throw ApiException.Unable("Embeddings");
            var size = body.Integer("output_dimension") ?? DefaultDimensions;
            if (size is < 1 or > 8192)
                throw ApiException.Bad($"output_dimension must be from 1 to 8192, got {size}.", "output_dimension");
            if ((long)size * inputs.Count > MaxNumbers)
                throw ApiException.Bad($"At most {MaxNumbers / size} texts of {size} dimensions fit into one request, got {inputs.Count}.", "texts");
            return size % 8 != 0 && wanted.Any(type => type is "binary" or "ubinary")
                ? throw ApiException.Bad($"Embedding dimension must be a multiple of 8 for binary embedding types, but got {size}.")
                : (parser.Model(body).Name, inputs, wanted, size);
        });
        if (await answers.RunAsync(context, model, texts) is not { } tokens)
            return;
        var vectors = texts.Select(text => answers.Vector(text.Text, dimensions)).ToArray();
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteString("id"u8, $"embd-{Guid.NewGuid():N}");
            json.WriteStartObject("embeddings"u8);
            foreach (var type in Types.Where(types.Contains))
                Embeddings(json, type, vectors);
            json.WriteEndObject();
            json.WriteStartArray("texts"u8);
            foreach (var text in texts)
                json.WriteStringValue(text.Text);
            json.WriteEndArray();
            json.WriteStartObject("meta"u8);
            json.WriteStartObject("api_version"u8);
            json.WriteString("version"u8, "2"u8);
            json.WriteEndObject();
            json.WriteStartObject("tokens"u8);
            json.WriteNumber("input_tokens"u8, tokens);
            json.WriteEndObject();
            json.WriteEndObject();
            json.WriteString("response_type"u8, "embeddings_by_type"u8);
        });
    }

    private static IReadOnlyList<Prompt> Texts(JsonElement body)
    {
        var texts = body.Field("texts") is not null ? RequestParser.Prompts(body, "texts")
            : body.Field("inputs") is { ValueKind: JsonValueKind.Array } inputs ? [.. inputs.EnumerateArray().Select(Input)]
            : body.Field("images") is not null ? throw ApiException.Bad("This model does not take images.", "images")
            : throw ApiException.Bad("One of texts, images or inputs must be provided.", "texts");
        return texts;
    }

    private static Prompt Input(JsonElement input) => RequestParser.ChatPrompt(
        [("user", input.ValueKind == JsonValueKind.Object && input.Field("content") is { ValueKind: JsonValueKind.Array } content
            ? string.Join('\n', content.EnumerateArray().Select(part => part.ValueKind == JsonValueKind.Object ? part.Text("text") : null))
            : throw ApiException.Shape("body.inputs.content", "missing", "Field required"))], generate: false);

    private static string[] Wanted(JsonElement body) => body.Field("embedding_types") switch
    {
        null => ["float"],
        { ValueKind: JsonValueKind.Array } list => [.. list.EnumerateArray().Select(item =>
            item.ValueKind == JsonValueKind.String && Types.Contains(item.GetString()) ? item.GetString()!
                : throw ApiException.Shape("body.embedding_types", "literal_error", $"Input should be one of {string.Join(", ", Types)}"))],
        _ => throw ApiException.Shape("body.embedding_types", "list_type", "Input should be a valid list"),
    };

    private static void Embeddings(Utf8JsonWriter json, string type, float[][] vectors)
    {
        json.WriteStartArray(type);
        foreach (var vector in vectors)
            if (type == "float")
                PoolingAnswers.Write(json, vector);
            else if (type == "base64")
                json.WriteBase64StringValue(PoolingAnswers.Bytes(vector));
            else
                Bits(json, vector, type == "binary" ? 128 : 0);
        json.WriteEndArray();
    }

    /// <summary>The signs, eight in a byte with the first in the highest bit.</summary>
    private static void Bits(Utf8JsonWriter json, float[] vector, int offset)
    {
        json.WriteStartArray();
        for (var at = 0; at < vector.Length; at += 8)
        {
            var value = 0;
            for (var bit = 0; bit < 8; bit++)
                value |= (vector[at + bit] >= 0 ? 1 : 0) << (7 - bit);
            json.WriteNumberValue(value - offset);
        }
        json.WriteEndArray();
    }
}
