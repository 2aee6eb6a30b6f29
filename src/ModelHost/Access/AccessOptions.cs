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

    /// <summary>
    /// Addresses and networks of reverse proxies whose <c>X-Forwarded-For</c>, <c>-Proto</c>, <c>-Host</c> and <c>-Prefix</c> are believed, separated by
    /// commas (<c>127.0.0.1,10.0.0.0/8</c>). Default: none. What comes through a proxy is never taken for a local program.
    /// </summary>
    public string TrustedProxies { get; set; } = "";
}
