namespace ModelHost.Features.Usage;

/// <summary>What one key used of one deployment on one day (UTC). It stays when either is deleted.</summary>
internal sealed class UsageRow
{
    public int KeyId { get; set; }

    public required string DeploymentUid { get; set; }

    public DateOnly Day { get; set; }

    // as they were called last
    public required string KeyLabel { get; set; }
    public int DeploymentId { get; set; }
    public required string Model { get; set; }
    public required string Owner { get; set; }

    public long Requests { get; set; }
    public long Aborted { get; set; }
    public long Failed { get; set; }
    public long PromptTokens { get; set; }
    public long CompletionTokens { get; set; }
}
