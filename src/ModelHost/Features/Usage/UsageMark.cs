namespace ModelHost.Features.Usage;

/// <summary>How far the journal of a node has been booked: written in one transaction with what was booked of it.</summary>
internal sealed class UsageMark
{
    /// <summary>The id that the node has itself; the mark stays when its record goes.</summary>
    public required string NodeUid { get; set; }

    public required string Journal { get; set; }

    public long Sequence { get; set; }
}
