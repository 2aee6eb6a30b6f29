using System.ComponentModel.DataAnnotations;
using System.Net;

namespace ModelHost.Cluster;

/// <summary>How nodes on other machines reach this control plane. Section <c>Cluster</c>.</summary>
public sealed class ClusterOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Cluster";

    /// <summary>
    /// Address and port for joining, renewal and heartbeats, with TLS of the cluster's own authority. Default <c>0.0.0.0:8443</c>. It is opened by the first
    /// join token, and from then on at every start.
    /// </summary>
    [EndPointText]
    public string Listen { get; set; } = "0.0.0.0:8443";

    /// <summary>Whether it is opened at start even without nodes or join tokens. Default false; <c>--cluster-listen</c> sets it.</summary>
    public bool Open { get; set; }
}

/// <summary>Lets through an IP address with a port.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class EndPointTextAttribute() : ValidationAttribute("an address to listen on is an IP address with a port, such as 0.0.0.0:8443 or [::]:8443")
{
    public override bool IsValid(object? value) => value is string text && IsEndPoint(text);

    /// <summary>Whether a text is an IP address with a port; 0 is one: any that is free.</summary>
    public static bool IsEndPoint(string text) => IPEndPoint.TryParse(text, out var end) && (end.Port != 0 || text.EndsWith(":0", StringComparison.Ordinal));
}
