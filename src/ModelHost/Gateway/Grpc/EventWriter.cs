using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Features;
using ModelHost.Agent.Http;

namespace ModelHost.Gateway.Grpc;

/// <summary>Writes a completion as server-sent events, in OpenAI's chunks. A client that reads slowly is waited for, and with it the backend.</summary>
/// <param name="call">The call that is answered.</param>
/// <param name="kind">What the chunks call themselves.</param>
internal sealed class EventWriter(BackendCall call, string kind) : IDisposable
{
    private readonly string _id = Guid.NewGuid().ToString();
    private readonly ArrayBufferWriter<byte> _event = new();
    private readonly Utf8JsonWriter _json = new(Stream.Null, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });

    /// <summary>Sends a chunk with one choice.</summary>
    /// <param name="reason">Why the answer has ended; null: it goes on.</param>
    /// <param name="logprobs">Likelihoods; null: none.</param>
    /// <param name="output">Writes what the chunk adds, as a field.</param>
    public Task ChoiceAsync(string? reason, JsonElement? logprobs, Action<Utf8JsonWriter> output) => ChunkAsync(json =>
    {
        json.WriteStartObject();
        json.WriteNumber("index", 0);
        json.WriteString("finish_reason", reason);
        output(json);
        if (logprobs is { } told)
        {
            json.WritePropertyName("logprobs");
            told.WriteTo(json);
        }
        json.WriteEndObject();
    }, null);

    /// <summary>Sends the end of a whole answer.</summary>
    /// <param name="usage">What it used; null: that was not asked for.</param>
    public async Task EndAsync(AnswerUsage? usage)
    {
        if (usage is not null)
            await ChunkAsync(null, usage);
        await PassAsync("data: [DONE]\n\n"u8.ToArray());
    }

    public void Dispose() => _json.Dispose();

    private async Task ChunkAsync(Action<Utf8JsonWriter>? choice, AnswerUsage? usage)
    {
        Begin();
        _event.ResetWrittenCount();
        _event.Write("data: "u8);
        _json.Reset(_event);
        _json.WriteStartObject();
        _json.WriteNumber("created", call.CreatedAt);
        _json.WriteString("object", kind);
        _json.WriteString("id", _id);
        _json.WriteString("model", call.Model);
        _json.WriteStartArray("choices");
        choice?.Invoke(_json);
        _json.WriteEndArray();
        if (usage is not null)
        {
            _json.WritePropertyName("usage");
            JsonSerializer.Serialize(_json, usage, OpenAiAnswerJson.Readable.AnswerUsage);
        }
        _json.WriteEndObject();
        await _json.FlushAsync(call.Aborted);
        _event.Write("\n\n"u8);
        await PassAsync(_event.WrittenMemory);
    }

    private void Begin()
    {
        var response = call.Context.Response;
        if (response.HasStarted)
            return;
        response.ContentType = "text/event-stream";
        response.Headers.CacheControl = "no-cache";
        response.Headers["X-Accel-Buffering"] = "no"; // nginx in front of us must not hold events back
        response.Headers[RequestId.Header] = RequestId.Of(call.Context);
        call.Context.Features.Get<IHttpResponseBodyFeature>()?.DisableBuffering();
    }

    private async Task PassAsync(ReadOnlyMemory<byte> bytes)
    {
        await call.Context.Response.BodyWriter.WriteAsync(bytes, call.Aborted);
        call.Aborted.ThrowIfCancellationRequested();
    }
}
