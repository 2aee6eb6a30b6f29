using System.Buffers.Binary;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary><c>/v1/embeddings</c>: unit vectors that depend on the model and the text alone.</summary>
internal sealed class EmbeddingRoutes(ServerOptions options, RequestParser parser, Engine engine, TimeProvider time)
{
    private const int DefaultDimensions = 1024;

    public async Task EmbedAsync(HttpContext context)
    {
        var (name, prompts, format, dimensions) = await RequestBody.ReadAsync(context, body =>
        {
            var inputs = body.Field("messages") is null
                ? RequestParser.Prompts(body, "input")
                : [RequestParser.ChatPrompt(RequestParser.Messages(body), generate: false)];
            var model = parser.Model(body).Name;
            foreach (var input in inputs)
                parser.CheckLength(input, 0);
            var encoding = body.Text("encoding_format") ?? "float";
            if (encoding is not ("float" or "base64"))
                throw ApiException.Shape("body.encoding_format", "literal_error", "Input should be float or base64");
            var size = body.Integer("dimensions") ?? DefaultDimensions;
            return size is < 1 or > 8192
                ? throw ApiException.Bad($"dimensions must be from 1 to 8192, got {size}.", "dimensions")
                : (model, inputs, encoding, size);
        });
        using var generation = engine.Start(
            new GenerationRequest { Model = name, Prompts = prompts, MaxTokens = 1, IgnoreEndOfText = true }, context.RequestAborted);
        await generation.RunAsync();
        if (generation.Outcome == Outcome.EngineDead)
            throw ApiException.EngineDead();
        if (generation.Outcome == Outcome.Disconnected)
            return;
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteString("id"u8, $"embd-{Guid.NewGuid():N}");
            json.WriteString("object"u8, "list"u8);
            json.WriteNumber("created"u8, time.GetUtcNow().ToUnixTimeSeconds());
            json.WriteString("model"u8, name);
            json.WriteStartArray("data"u8);
            for (var i = 0; i < prompts.Count; i++)
            {
                json.WriteStartObject();
                json.WriteNumber("index"u8, i);
                json.WriteString("object"u8, "embedding"u8);
                var vector = Vector(prompts[i].Text, dimensions);
                if (format == "base64")
                {
                    json.WriteBase64String("embedding"u8, Bytes(vector));
                }
                else
                {
                    json.WriteStartArray("embedding"u8);
                    foreach (var value in vector)
                        json.WriteNumberValue(value);
                    json.WriteEndArray();
                }
                json.WriteEndObject();
            }
            json.WriteEndArray();
            json.WriteStartObject("usage"u8);
            json.WriteNumber("prompt_tokens"u8, generation.Request.PromptTokens);
            json.WriteNumber("total_tokens"u8, generation.Request.PromptTokens);
            json.WriteNumber("completion_tokens"u8, 0);
            json.WriteNull("prompt_tokens_details"u8);
            json.WriteEndObject();
        });
    }

    private float[] Vector(string text, int dimensions)
    {
        var source = new TextSource(TextSource.Hash(text, TextSource.Hash(options.Model, (ulong)options.Seed)));
        var vector = new float[dimensions];
        var squares = 0.0;
        for (var i = 0; i < dimensions; i++)
        {
            vector[i] = ((source.Random() & 0xFFFF) / 32768f) - 1;
            squares += vector[i] * vector[i];
        }
        var length = (float)Math.Sqrt(squares);
        for (var i = 0; i < dimensions; i++)
            vector[i] /= length;
        return vector;
    }

    private static byte[] Bytes(float[] vector)
    {
        var bytes = new byte[vector.Length * sizeof(float)];
        for (var i = 0; i < vector.Length; i++)
            BinaryPrimitives.WriteSingleLittleEndian(bytes.AsSpan(i * sizeof(float)), vector[i]);
        return bytes;
    }
}
