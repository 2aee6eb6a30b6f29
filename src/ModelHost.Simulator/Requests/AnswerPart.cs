using ModelHost.Simulator.Metrics;

namespace ModelHost.Simulator.Requests;

/// <summary>What a stretch of an answer is.</summary>
internal enum PartKind
{
    Reasoning,
    Text,
    Call,
}

/// <summary>A stretch of an answer's tokens that is of one kind; the parts of an answer follow each other without gaps.</summary>
/// <param name="Kind">What it is.</param>
/// <param name="Start">Its first token.</param>
/// <param name="End">The token after its last one.</param>
/// <param name="Call">The call whose arguments it is.</param>
/// <param name="CallIndex">The call's place among those of the answer.</param>
internal sealed record AnswerPart(PartKind Kind, int Start, int End, ToolCall? Call = null, int CallIndex = 0);

/// <summary>New tokens of one choice, all of one part.</summary>
/// <param name="Part">The part they belong to.</param>
/// <param name="Start">The first of them.</param>
/// <param name="End">The token after the last one.</param>
/// <param name="Text">What they say.</param>
/// <param name="Finish">Set when nothing follows.</param>
internal readonly record struct Piece(AnswerPart Part, int Start, int End, string Text, FinishReason? Finish)
{
    /// <summary>It is the beginning of its part.</summary>
    public bool Opens => Start == Part.Start;
}
