using System.Text;
using System.Text.Json;
using ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>What a reply adds to an answer.</summary>
/// <param name="Content">Text.</param>
/// <param name="Reasoning">Reasoning before it.</param>
/// <param name="Calls">Pieces of calls.</param>
/// <param name="Logprobs">Likelihoods in OpenAI's form; null: none.</param>
internal readonly record struct AnswerPiece(string Content, string Reasoning, IReadOnlyList<ToolCallDelta> Calls, JsonElement? Logprobs)
{
    /// <summary>Whether a client has something of it.</summary>
    public bool IsEmpty => Content.Length == 0 && Reasoning.Length == 0 && Calls.Count == 0 && Logprobs is null;
}

/// <summary>
/// Reads the replies of one answer, of old backends and new ones: newer ones tell text, reasoning and calls apart, older ones send the bytes of the text, cut
/// anywhere. Once a backend has told them apart, only that counts: the bytes that it sends beside are the same answer.
/// </summary>
internal sealed class AnswerReader
{
    private readonly Decoder _text = Encoding.UTF8.GetDecoder();
    private bool _isToldApart;

    /// <summary>Tokens of the prompt, as the backend tells them.</summary>
    public int PromptTokens { get; private set; }

    /// <summary>Tokens generated so far, as the backend tells them.</summary>
    public int Tokens { get; private set; }

    /// <summary>Replies that carried output.</summary>
    public int Pieces { get; private set; }

    /// <summary>Milliseconds that the prompt took.</summary>
    public double PromptMs { get; private set; }

    /// <summary>Milliseconds that the answer took.</summary>
    public double GenerationMs { get; private set; }

    /// <summary>Takes the next reply.</summary>
    public AnswerPiece Take(Reply reply)
    {
        PromptTokens = Math.Max(PromptTokens, reply.PromptTokens);
        Tokens = Math.Max(Tokens, reply.Tokens);
        PromptMs = Known(reply.TimingPromptProcessing, PromptMs);
        GenerationMs = Known(reply.TimingTokenGeneration, GenerationMs);
        _isToldApart |= reply.ChatDeltas.Count > 0;
        var piece = _isToldApart
            ? new AnswerPiece(
                string.Concat(reply.ChatDeltas.Select(delta => delta.Content)), string.Concat(reply.ChatDeltas.Select(delta => delta.ReasoningContent)),
                [.. reply.ChatDeltas.SelectMany(delta => delta.ToolCalls)], Likelihoods(reply))
            : new AnswerPiece(Decode(reply.Message.Span, isLast: false), "", [], Likelihoods(reply));
        if (!piece.IsEmpty || (!_isToldApart && reply.Message.Length > 0))
            Pieces++;
        return piece;
    }

    /// <summary>What was left of the text: of a character that the backend did not end, the sign for one that cannot be read.</summary>
    public string End() => _isToldApart ? "" : Decode([], isLast: true);

    private string Decode(ReadOnlySpan<byte> bytes, bool isLast)
    {
        var characters = new char[Encoding.UTF8.GetMaxCharCount(bytes.Length) + 1];
        return new string(characters, 0, _text.GetChars(bytes, characters, flush: isLast));
    }

    private static double Known(double told, double before) => double.IsFinite(told) && told > 0 ? told : before;

    private static JsonElement? Likelihoods(Reply reply)
    {
        if (reply.Logprobs.IsEmpty)
            return null;
        try
        {
            using var document = JsonDocument.Parse(reply.Logprobs.Memory);
            return document.RootElement.ValueKind == JsonValueKind.Object ? document.RootElement.Clone() : null;
        }
        catch (JsonException)
        {
            return null; // the answer is worth more than what is said about it
        }
    }
}
