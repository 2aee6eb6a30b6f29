using System.Text;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Requests;

/// <summary>
/// One choice of an answer. Its text is made in full before the first token is sent: it depends on the request alone, and stop strings
/// that span tokens can be cut out before anybody has seen them.
/// </summary>
internal sealed class Sequence
{
    private const int ShortestNatural = 16;

    private const int NaturalSpread = 48;

    private readonly List<string> _pieces;
    private int[]? _offsets;

    private Sequence(int index, Prompt prompt, List<string> pieces, IReadOnlyList<AnswerPart> parts, FinishReason finish, string? stopReason) =>
        (Index, Prompt, _pieces, Parts, Finish, StopReason) = (index, prompt, pieces, parts, finish, stopReason);

    public int Index { get; }

    public Prompt Prompt { get; }

    /// <summary>Tokens of the whole answer, the end-of-text token included.</summary>
    public int Length => _pieces.Count;

    /// <summary>Reasoning, then text or calls; there is at least one part.</summary>
    public IReadOnlyList<AnswerPart> Parts { get; }

    /// <summary>Tokens at the beginning that are reasoning.</summary>
    public int ReasoningTokens => Parts[0].Kind == PartKind.Reasoning ? Parts[0].End : 0;

    public FinishReason Finish { get; }

    /// <summary>The stop string that ended it; null for the end-of-text token.</summary>
    public string? StopReason { get; }

    /// <summary>Text of the tokens from <paramref name="start"/> up to <paramref name="end"/>; the end-of-text token has none.</summary>
    public string Text(int start, int end) => end - start == 1 ? _pieces[start] : string.Concat(_pieces.Skip(start).Take(end - start));

    /// <summary>The text of one token.</summary>
    public string Token(int at) => _pieces[at];

    /// <summary>Where the text of a token begins.</summary>
    public int Offset(int at)
    {
        if (_offsets is null)
        {
            _offsets = new int[_pieces.Count];
            for (var i = 1; i < _offsets.Length; i++)
                _offsets[i] = _offsets[i - 1] + _pieces[i - 1].Length;
        }
        return _offsets[at];
    }

    /// <summary>The tokens from <paramref name="start"/> up to <paramref name="end"/>, cut where a part ends. There is always a piece, if only an empty one.</summary>
    /// <param name="start">The first token.</param>
    /// <param name="end">The token after the last one.</param>
    /// <param name="finish">Why the answer ends with the last piece; null when it goes on.</param>
    public IEnumerable<Piece> Pieces(int start, int end, FinishReason? finish)
    {
        var at = start;
        foreach (var part in Parts)
        {
            var last = part == Parts[^1] || (part.End > at && part.End >= end);
            if (part.End <= at && !last)
                continue;
            var until = Math.Min(end, part.End);
            yield return new(part, at, until, Text(at, until), last ? finish : null);
            at = until;
            if (last)
                yield break;
        }
    }

    /// <summary>Tokens that an answer to the request has at most.</summary>
    public static long LongestOf(GenerationRequest request, int naturalTokens) => request.IgnoreEndOfText ? request.MaxTokens
        : Math.Min(request.MaxTokens, Math.Max(request.MinTokens, naturalTokens > 0 ? naturalTokens : ShortestNatural + NaturalSpread) + 1L);

    public static Sequence Make(GenerationRequest request, int index, long serverSeed, int naturalTokens)
    {
        var prompt = request.Prompts[index / request.N];
        var seed = TextSource.Hash(request.Model, (ulong)(serverSeed + (request.Seed ?? 0)));
        var source = new TextSource(TextSource.Hash(prompt.Text, seed + (ulong)(index % request.N)));
        if (request.Calls.Count > 0 || request.Json is not null)
            return Written(request, index, prompt, ref source);
        var natural = naturalTokens > 0 ? naturalTokens : ShortestNatural + (int)(source.Random() % NaturalSpread);
        natural = Math.Max(natural, request.MinTokens);
        var ends = !request.IgnoreEndOfText && natural < request.MaxTokens;
        var length = ends ? natural : request.MaxTokens;
        var pieces = new List<string>(length + 1);
        var text = request.Stop.Count > 0 ? new StringBuilder() : null;
        for (var i = 0; i < length; i++)
        {
            pieces.Add(source.Next());
            if (text?.Append(pieces[^1]) is not null && pieces.Count > request.MinTokens && Cut(pieces, text, request) is { } stop)
                return new(index, prompt, pieces, TextParts(request, pieces.Count), FinishReason.Stop, stop);
        }
        if (!ends)
            return new(index, prompt, pieces, TextParts(request, pieces.Count), FinishReason.Length, null);
        pieces.Add("");
        return new(index, prompt, pieces, TextParts(request, pieces.Count), FinishReason.Stop, null);
    }

    /// <summary>The same number of tokens from weights that were never loaded.</summary>
    public Sequence Garbled() => new(Index, Prompt, [.. _pieces.Select(piece => piece.Length == 0 ? "" : "!")], Parts, Finish, null);

    /// <summary>The first half is reasoning, if the model reasons.</summary>
    private static AnswerPart[] TextParts(GenerationRequest request, int length)
    {
        var reasoned = request.Reasons ? length / 2 : 0;
        return reasoned == 0 ? [new(PartKind.Text, 0, length)] : [new(PartKind.Reasoning, 0, reasoned), new(PartKind.Text, reasoned, length)];
    }

    /// <summary>An answer whose text is known: calls, or JSON.</summary>
    private static Sequence Written(GenerationRequest request, int index, Prompt prompt, ref TextSource source)
    {
        const int Reasoning = 8;
        const int Fragment = 6;
        var (pieces, parts) = (new List<string>(), new List<AnswerPart>());
        for (var i = 0; request.Reasons && i < Reasoning; i++)
            pieces.Add(source.Next());
        if (pieces.Count > 0)
            parts.Add(new(PartKind.Reasoning, 0, pieces.Count));
        if (request.Calls.Count == 0)
            Write(PartKind.Text, request.Json!, null, 0);
        for (var i = 0; i < request.Calls.Count; i++)
            Write(PartKind.Call, request.Calls[i].Arguments, request.Calls[i], i);
        pieces.Add("");
        parts[^1] = parts[^1] with { End = pieces.Count };
        if (pieces.Count <= request.MaxTokens)
            return new(index, prompt, pieces, parts, FinishReason.Stop, null);
        pieces.RemoveRange(request.MaxTokens, pieces.Count - request.MaxTokens);
        return new(index, prompt, pieces,
            [.. parts.Where(part => part.Start < pieces.Count).Select(part => part with { End = Math.Min(part.End, pieces.Count) })], FinishReason.Length, null);

        void Write(PartKind kind, string text, ToolCall? call, int callIndex)
        {
            var start = pieces.Count;
            for (var at = 0; at < text.Length; at += Fragment)
                pieces.Add(text.Substring(at, Math.Min(Fragment, text.Length - at)));
            parts.Add(new(kind, start, pieces.Count, call, callIndex));
        }
    }

    private static string? Cut(List<string> pieces, StringBuilder text, GenerationRequest request)
    {
        var longest = request.Stop.Max(stop => stop.Length) + pieces[^1].Length;
        var from = Math.Max(0, text.Length - longest);
        var tail = text.ToString(from, text.Length - from);
        var (at, stop) = request.Stop.Select(stop => (At: tail.IndexOf(stop, StringComparison.Ordinal), Stop: stop))
            .Where(found => found.At >= 0).OrderBy(found => found.At).FirstOrDefault();
        if (stop is null)
            return null;
        var excess = tail.Length - at - (request.IncludeStop ? stop.Length : 0);
        for (var i = pieces.Count - 1; excess > 0; i--)
        {
            var taken = Math.Min(excess, pieces[i].Length);
            pieces[i] = pieces[i][..^taken];
            excess -= taken;
        }
        return stop;
    }
}
