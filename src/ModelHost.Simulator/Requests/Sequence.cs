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
    private readonly List<string> _pieces;

    private Sequence(int index, Prompt prompt, List<string> pieces, FinishReason finish, string? stopReason) =>
        (Index, Prompt, _pieces, Finish, StopReason) = (index, prompt, pieces, finish, stopReason);

    public int Index { get; }

    public Prompt Prompt { get; }

    /// <summary>Tokens of the whole answer, the end-of-text token included.</summary>
    public int Length => _pieces.Count;

    /// <summary>Tokens at the beginning that are reasoning.</summary>
    public int ReasoningTokens { get; private init; }

    public FinishReason Finish { get; }

    /// <summary>The stop string that ended it; null for the end-of-text token.</summary>
    public string? StopReason { get; }

    /// <summary>Text of the tokens from <paramref name="start"/> up to <paramref name="end"/>; the end-of-text token has none.</summary>
    public string Text(int start, int end) => end - start == 1 ? _pieces[start] : string.Concat(_pieces.Skip(start).Take(end - start));

    public static Sequence Make(GenerationRequest request, int index, long serverSeed, int naturalTokens)
    {
        var prompt = request.Prompts[index / request.N];
        var seed = TextSource.Hash(request.Model, (ulong)(serverSeed + (request.Seed ?? 0)));
        var source = new TextSource(TextSource.Hash(prompt.Text, seed + (ulong)(index % request.N)));
        if (request.Tool is { } tool)
            return Call(request, tool, index, prompt, ref source);
        var natural = naturalTokens > 0 ? naturalTokens : 16 + (int)(source.Random() % 48);
        natural = Math.Max(natural, request.MinTokens);
        var ends = !request.IgnoreEndOfText && natural < request.MaxTokens;
        var length = ends ? natural : request.MaxTokens;
        var pieces = new List<string>(length + 1);
        var text = request.Stop.Count > 0 ? new StringBuilder() : null;
        for (var i = 0; i < length; i++)
        {
            pieces.Add(source.Next());
            if (text?.Append(pieces[^1]) is not null && pieces.Count > request.MinTokens && Cut(pieces, text, request) is { } stop)
                return new(index, prompt, pieces, FinishReason.Stop, stop) { ReasoningTokens = request.Reasons ? pieces.Count / 2 : 0 };
        }
        if (!ends)
            return new(index, prompt, pieces, FinishReason.Length, null) { ReasoningTokens = request.Reasons ? pieces.Count / 2 : 0 };
        pieces.Add("");
        return new(index, prompt, pieces, FinishReason.Stop, null) { ReasoningTokens = request.Reasons ? pieces.Count / 2 : 0 };
    }

    /// <summary>The same number of tokens from weights that were never loaded.</summary>
    public Sequence Garbled() => new(Index, Prompt, [.. _pieces.Select(piece => piece.Length == 0 ? "" : "!")], Finish, null) { ReasoningTokens = ReasoningTokens };

    private static Sequence Call(GenerationRequest request, ToolCall tool, int index, Prompt prompt, ref TextSource source)
    {
        const int Reasoning = 8;
        const int Fragment = 6;
        var pieces = new List<string>();
        for (var i = 0; request.Reasons && i < Reasoning; i++)
            pieces.Add(source.Next());
        for (var at = 0; at < tool.Arguments.Length; at += Fragment)
            pieces.Add(tool.Arguments.Substring(at, Math.Min(Fragment, tool.Arguments.Length - at)));
        pieces.Add("");
        var complete = pieces.Count <= request.MaxTokens;
        if (!complete)
            pieces.RemoveRange(request.MaxTokens, pieces.Count - request.MaxTokens);
        return new(index, prompt, pieces, complete ? FinishReason.Stop : FinishReason.Length, null)
        {
            ReasoningTokens = request.Reasons ? Math.Min(Reasoning, pieces.Count) : 0,
        };
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
