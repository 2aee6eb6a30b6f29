using System.Buffers.Binary;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary>What the pooling routes have in common: one pass through the engine, and a list with one entry for each text.</summary>
internal sealed class PoolingAnswers(ServerOptions options, RequestParser parser, Engine engine, AnswerWriter writer, TimeProvider time)
{
    /// <summary>Bytes that are held back at most while a list is written: vectors of many tokens would fill the memory.</summary>
    private const int FlushBytes = 1 << 16;

    /// <summary>Lets the engine take its time over all texts.</summary>
    /// <returns>The tokens of the texts; null when there is nobody to answer.</returns>
    /// <exception cref="ApiException">A text is too long, or the engine could not go on.</exception>
    public async Task<int?> RunAsync(HttpContext context, string model, IReadOnlyList<Prompt> texts)
    {
        foreach (var text in texts)
            parser.CheckLength(text, 0);
        using var generation = engine.Start(
            new GenerationRequest { Model = model, Prompts = texts, MaxTokens = 1, IgnoreEndOfText = true }.ToRankOf(context), context.RequestAborted);
        return await writer.RunAsync(generation, new ClientSink(context)) ? generation.Request.PromptTokens : null;
    }

    /// <summary>Runs, and answers with the list.</summary>
    /// <param name="context">The request.</param>
    /// <param name="prefix">Of the answer's id.</param>
    /// <param name="model">The name to answer with.</param>
    /// <param name="texts">What goes through the engine.</param>
    /// <param name="entry">Writes the members of one entry after its index; may call its last argument when it has written much.</param>
    public async Task ListAsync(HttpContext context, string prefix, string model, IReadOnlyList<Prompt> texts, Func<Utf8JsonWriter, int, Func<ValueTask>, ValueTask> entry)
    {
        if (await RunAsync(context, model, texts) is not { } tokens)
            return;
        context.Response.ContentType = "application/json";
        await using var json = new Utf8JsonWriter(context.Response.BodyWriter, ResponseBuffer.Style);
        json.WriteStartObject();
        json.WriteString("id"u8, $"{prefix}{Guid.NewGuid():N}");
        json.WriteString("object"u8, "list"u8);
        json.WriteNumber("created"u8, time.GetUtcNow().ToUnixTimeSeconds());
        json.WriteString("model"u8, model);
        json.WriteStartArray("data"u8);
        for (var i = 0; i < texts.Count; i++)
        {
            json.WriteStartObject();
            json.WriteNumber("index"u8, i);
            await entry(json, i, FlushAsync);
            json.WriteEndObject();
            await FlushAsync();
        }
        json.WriteEndArray();
        Usage(json, tokens);
        json.WriteNumber("completion_tokens"u8, 0);
        json.WriteNull("prompt_tokens_details"u8);
        json.WriteEndObject();
        json.WriteEndObject();
        json.Flush();
        await context.Response.BodyWriter.FlushAsync(context.RequestAborted);

        async ValueTask FlushAsync()
        {
            if (json.BytesPending + context.Response.BodyWriter.UnflushedBytes < FlushBytes)
                return;
            json.Flush();
            await context.Response.BodyWriter.FlushAsync(context.RequestAborted);
        }
    }

    /// <inheritdoc cref="ListAsync(HttpContext, string, string, IReadOnlyList{Prompt}, Func{Utf8JsonWriter, int, Func{ValueTask}, ValueTask})"/>
    public Task ListAsync(HttpContext context, string prefix, string model, IReadOnlyList<Prompt> texts, Action<Utf8JsonWriter, int> entry) =>
        ListAsync(context, prefix, model, texts, (json, index, _) =>
        {
            entry(json, index);
            return ValueTask.CompletedTask;
        });

    /// <summary>Begins the usage; the caller ends it.</summary>
    public static void Usage(Utf8JsonWriter json, int tokens)
    {
        json.WriteStartObject("usage"u8);
        json.WriteNumber("prompt_tokens"u8, tokens);
        json.WriteNumber("total_tokens"u8, tokens);
    }

    /// <summary>The texts of <c>input</c>, or the one that <c>messages</c> make.</summary>
    public static IReadOnlyList<Prompt> Inputs(JsonElement body) => body.Field("messages") is null
        ? RequestParser.Prompts(body, "input")
        : [RequestParser.ChatPrompt(RequestParser.Messages(body), generate: false)];

    /// <summary>Whether vectors go out as base64.</summary>
    public static bool IsBase64(JsonElement body) => (body.Text("encoding_format") ?? "float") switch
    {
        "float" => false,
        "base64" => true,
        _ => throw ApiException.Shape("body.encoding_format", "literal_error", "Input should be float or base64"),
    };

    /// <summary>The wished length of vectors.</summary>
    public static int Dimensions(JsonElement body, int otherwise)
    {
        var size = body.Integer("dimensions") ?? otherwise;
        return size is >= 1 and <= 8192 ? size : throw ApiException.Bad($"dimensions must be from 1 to 8192, got {size}.", "dimensions");
    }

    /// <summary>A vector of length one that depends on the model and the text alone.</summary>
    public float[] Vector(string text, int dimensions)
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

    /// <summary>Probabilities of all classes that depend on the model and the text alone; they add up to one.</summary>
    public double[] Probabilities(string text)
    {
        // as many as a classifier has whose configuration names none
        const int Classes = 2;
        var first = Math.Round(TextSource.Hash(text, TextSource.Hash(options.Model, (ulong)options.Seed)) % 9_999 / 10_000.0, 4);
        return [first, .. Enumerable.Repeat(Math.Round((1 - first) / (Classes - 1), 4), Classes - 1)];
    }

    public static void Write(Utf8JsonWriter json, ReadOnlySpan<byte> name, float[] vector, bool base64)
    {
        json.WritePropertyName(name);
        if (base64)
            json.WriteBase64StringValue(Bytes(vector));
        else
            Write(json, vector);
    }

    public static void Write(Utf8JsonWriter json, float[] vector)
    {
        json.WriteStartArray();
        foreach (var value in vector)
            json.WriteNumberValue(value);
        json.WriteEndArray();
    }

    public static byte[] Bytes(float[] vector)
    {
        var bytes = new byte[vector.Length * sizeof(float)];
        for (var i = 0; i < vector.Length; i++)
            BinaryPrimitives.WriteSingleLittleEndian(bytes.AsSpan(i * sizeof(float)), vector[i]);
        return bytes;
    }
}
