namespace ModelHost.Protocol;

/// <summary>Error codes of pulls that a control plane acts on; of others it tells.</summary>
public static class PullErrors
{
    /// <summary>It was held, whole, and dropped since nobody asked for it within <c>Downloads:HoldFor</c>. Who asks for it then has it begin anew.</summary>
    public const string HoldExpired = "hold_expired";
}
