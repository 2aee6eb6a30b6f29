using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace ModelHost.Simulator.Server;

/// <summary>A JSON writer with its buffer, reused by the requests of a thread: at thousands of answers a second new ones are most of the garbage.</summary>
internal sealed class ResponseBuffer
{
    [ThreadStatic]
    private static ResponseBuffer? _spare;

    private readonly ArrayBufferWriter<byte> _bytes = new(1024);

    private ResponseBuffer() => Json = new(_bytes, Style);

    /// <summary>vLLM escapes no more than JSON demands; nothing is validated because the shapes are fixed here.</summary>
    public static JsonWriterOptions Style { get; } = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true };

    public Utf8JsonWriter Json { get; }

    /// <summary>What has been written; the JSON must be flushed.</summary>
    public ReadOnlyMemory<byte> Written => _bytes.WrittenMemory;

    public static ResponseBuffer Rent()
    {
        var buffer = _spare ?? new ResponseBuffer();
        _spare = null;
        return buffer;
    }

    public static void Return(ResponseBuffer buffer)
    {
        buffer.Clear();
        _spare = buffer;
    }

    public void Raw(ReadOnlySpan<byte> bytes) => _bytes.Write(bytes);

    /// <summary>Begins an event, whose data is one JSON object.</summary>
    public void BeginEvent()
    {
        Raw("data: "u8);
        Json.WriteStartObject();
    }

    /// <summary>Begins an event that has a name.</summary>
    public void BeginEvent(ReadOnlySpan<byte> name)
    {
        Raw("event: "u8);
        Raw(name);
        Raw("\n"u8);
        BeginEvent();
    }

    public void EndEvent()
    {
        Json.WriteEndObject();
        EndJson();
        Raw("\n\n"u8);
    }

    /// <summary>The event that ends the streams of the chat family.</summary>
    public void Done() => Raw("data: [DONE]\n\n"u8);

    /// <summary>Ends the JSON text that was begun, so that another may follow.</summary>
    public void EndJson()
    {
        Json.Flush();
        Json.Reset();
    }

    public void Clear()
    {
        _bytes.ResetWrittenCount();
        Json.Reset();
    }
}
