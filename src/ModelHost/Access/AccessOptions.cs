namespace ModelHost.Access;

/// <summary>Who may do what. Section <c>Access</c>.</summary>
public sealed class AccessOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Access";

    /// <summary>
    /// Opens every route to everybody who reaches the listener, as the published systems are. Default false; a warning is logged at
    /// every start.
    /// </summary>
    public bool TrustedLan { get; set; }
}
