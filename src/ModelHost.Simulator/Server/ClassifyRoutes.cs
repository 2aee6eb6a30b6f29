using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary><c>/classify</c>, and <c>/pooling</c> with what lies under it and the embeddings.</summary>
internal sealed class ClassifyRoutes(RequestParser parser, PoolingAnswers answers, ModelTasks tasks)
{
    /// <summary>Length of the vectors of single tokens, as late-interaction models have it.</summary>
    private const int TokenDimensions = 128;

    private const int TextDimensions = 1024;

    private readonly string[] _tasks = tasks.Classifies ? ["token_classify", "classify"] : ["token_embed", "embed"];

    public async Task ClassifyAsync(HttpContext context)
    {
        var (model, texts) = await RequestBody.ReadAsync(context, body =>
        {
            var inputs = PoolingAnswers.Inputs(body);
            if (!tasks.Classifies)
                throw ApiException.Unable("Classification");
            return (parser.Model(body).Name, inputs);
        });
        await answers.ListAsync(context, "classify-", model, texts, (json, index) =>
        {
            var probabilities = answers.Probabilities(texts[index].Text);
            json.WriteString("label"u8, $"LABEL_{Array.IndexOf(probabilities, probabilities.Max())}");
            json.WritePropertyName("probs"u8);
            Write(json, probabilities);
            json.WriteNumber("num_classes"u8, probabilities.Length);
        });
    }

    /// <summary>One vector for each token, or with the task of a whole text one for that.</summary>
    public async Task PoolAsync(HttpContext context)
    {
        var (model, texts, base64, task, dimensions) = await RequestBody.ReadAsync(context, body =>
        {
            var inputs = PoolingAnswers.Inputs(body);
            var name = parser.Model(body).Name;
            var asked = body.Text("task") ?? _tasks[0];
            if (!_tasks.Contains(asked))
                throw ApiException.Bad($"Unsupported task: '{asked}' Supported tasks: {string.Join(", ", _tasks.Order())}", "task");
            return (name, inputs, PoolingAnswers.IsBase64(body), asked, PoolingAnswers.Dimensions(body, asked == "token_embed" ? TokenDimensions : TextDimensions));
        });
        await answers.ListAsync(context, "pool-", model, texts, (json, index, flush) =>
        {
            json.WriteString("object"u8, "pooling"u8);
            json.WritePropertyName("data"u8);
            Func<string, float[]> vector = tasks.Classifies ? Classes : text => answers.Vector(text, dimensions);
            return WriteAsync(json, task.StartsWith("token_", StringComparison.Ordinal) ? Tokens(texts[index].Text) : [texts[index].Text],
                vector, nested: task.StartsWith("token_", StringComparison.Ordinal), base64, flush);
        });
    }

    private static IEnumerable<string> Tokens(string text) => Tokenizer.Encode(text).Select(token => Tokenizer.Decode([token]));

    private float[] Classes(string text) => [.. answers.Probabilities(text).Select(probability => (float)probability)];

    private static async ValueTask WriteAsync(Utf8JsonWriter json, IEnumerable<string> texts, Func<string, float[]> vector, bool nested, bool base64, Func<ValueTask> flush)
    {
        if (base64)
        {
            foreach (var text in texts)
            {
                json.WriteBase64StringSegment(PoolingAnswers.Bytes(vector(text)), isFinalSegment: false);
                await flush();
            }
            json.WriteBase64StringSegment([], isFinalSegment: true);
            return;
        }
        if (nested)
            json.WriteStartArray();
        foreach (var text in texts)
        {
            PoolingAnswers.Write(json, vector(text));
            await flush();
        }
        if (nested)
            json.WriteEndArray();
    }

    private static void Write(Utf8JsonWriter json, double[] values)
    {
        json.WriteStartArray();
        foreach (var value in values)
            json.WriteNumberValue(value);
        json.WriteEndArray();
    }
}
