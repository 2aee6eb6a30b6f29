using System.Globalization;
using System.IO.Compression;
using System.Text;
using System.Text.Json;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary>Answers of <c>/v1/audio/transcriptions</c> and <c>/v1/audio/translations</c>; one object answers one request.</summary>
/// <param name="request">The request.</param>
/// <param name="seconds">How long the sound is.</param>
/// <param name="translates">The answer is a translation: it does not say what it cost.</param>
internal sealed class AudioFormat(AudioRequest request, double seconds, bool translates) : GenerationFormat
{
    /// <summary>Tokens of the encoder for a second of sound.</summary>
    private const int AudioTokensPerSecond = 50;

    private int _completion;

    public override string IdPrefix => translates ? "translate-" : "transcribe-";

    /// <inheritdoc/>
    /// <remarks>Format text is answered with JSON too.</remarks>
    public override void Whole(Utf8JsonWriter json, in AnswerHead head, Generation generation)
    {
        var sequence = generation.Sequences[0];
        var text = sequence.Text(0, generation.Done(sequence));
        json.WriteStartObject();
        if (request.Verbose)
        {
            json.WriteString("duration"u8, seconds.ToString("0.0###########", CultureInfo.InvariantCulture));
            json.WriteString("language"u8, request.Language);
            json.WriteString("text"u8, text);
            Segments(json, generation, sequence);
            json.WriteNull("words"u8);
        }
        else
        {
            json.WriteString("text"u8, text);
            if (!translates)
            {
                json.WriteStartObject("usage"u8);
                json.WriteString("type"u8, "duration"u8);
                json.WriteNumber("seconds"u8, (int)Math.Ceiling(seconds));
                json.WriteEndObject();
            }
        }
        json.WriteEndObject();
    }

    public override void Chunk(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, in Piece piece)
    {
        _completion = generation.Done(sequence);
        if (piece.Text.Length == 0 && piece.Finish is null)
            return;
        var json = buffer.Json;
        Begin(buffer, head, generation);
        json.WriteStartObject();
        json.WriteStartObject("delta"u8);
        json.WriteString("content"u8, piece.Text);
        json.WriteEndObject();
        if (piece.Finish is { } finish)
        {
            json.WriteString("finish_reason"u8, finish switch
            {
                FinishReason.Stop => "stop",
                FinishReason.Length => "length",
                FinishReason.Abort => "abort",
                FinishReason.Error => "error",
                FinishReason.Repetition => "repetition",
            });
            json.WriteNull("stop_reason"u8);
        }
        json.WriteEndObject();
        json.WriteEndArray();
        if (request.ContinuousUsage)
            Usage(json, generation);
        buffer.EndEvent();
    }

    public override void Closing(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        if (generation.Request.IncludeUsage)
        {
            Begin(buffer, head, generation);
            buffer.Json.WriteEndArray();
            Usage(buffer.Json, generation);
            buffer.EndEvent();
        }
        buffer.Done();
    }

    public override bool Failed(ResponseBuffer buffer, ApiException error, bool flat) => Answers.FailureEvent(buffer, error, flat);

    private void Begin(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
        buffer.BeginEvent();
        buffer.Json.WriteString("id"u8, head.Id);
        buffer.Json.WriteString("object"u8, translates ? "translation.chunk"u8 : "transcription.chunk"u8);
        buffer.Json.WriteNumber("created"u8, head.Created);
        buffer.Json.WriteString("model"u8, generation.Request.Model);
        buffer.Json.WriteStartArray("choices"u8);
    }

    private void Usage(Utf8JsonWriter json, Generation generation)
    {
        var prompt = generation.Request.PromptTokens + (int)Math.Ceiling(seconds * AudioTokensPerSecond);
        json.WriteStartObject("usage"u8);
        json.WriteNumber("prompt_tokens"u8, prompt);
        json.WriteNumber("total_tokens"u8, prompt + _completion);
        json.WriteNumber("completion_tokens"u8, _completion);
        json.WriteEndObject();
    }

    /// <summary>A sentence each, spoken at an even pace.</summary>
    private void Segments(Utf8JsonWriter json, Generation generation, Sequence sequence)
    {
        var done = generation.Done(sequence);
        json.WriteStartArray("segments"u8);
        for (var (id, start, at) = (0, 0, 0); at < done; at++)
        {
            if (sequence.Token(at) != "." && at + 1 < done)
                continue;
            var text = sequence.Text(start, at + 1);
            if (text.Length > 0)
                Segment(json, id++, text, seconds * start / done, seconds * (at + 1) / done);
            start = at + 1;
        }
        json.WriteEndArray();
    }

    private void Segment(Utf8JsonWriter json, int id, string text, double start, double end)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        json.WriteStartObject();
        json.WriteNumber("id"u8, id);
        json.WriteNumber("avg_logprob"u8, -0.25);
        json.WriteNumber("compression_ratio"u8, Math.Round((double)bytes.Length / Compressed(bytes), 4));
        json.WriteNumber("end"u8, Math.Round(end, 2));
        json.WriteNull("no_speech_prob"u8);
        json.WriteNumber("seek"u8, 0);
        json.WriteNumber("start"u8, Math.Round(start, 2));
        json.WriteNumber("temperature"u8, request.Temperature);
        json.WriteString("text"u8, text);
        json.WriteStartArray("tokens"u8);
        foreach (var token in Tokenizer.Encode(text))
            json.WriteNumberValue(token);
        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static long Compressed(byte[] bytes)
    {
        using var packed = new MemoryStream();
        using (var packer = new ZLibStream(packed, CompressionLevel.Optimal, leaveOpen: true))
            packer.Write(bytes);
        return packed.Length;
    }
}
