using System.ComponentModel.DataAnnotations;

namespace ModelHost.Cluster.Discovery;

/// <summary>The Consul in whose catalogue nodes are looked for. Section <c>Discovery:Consul</c>.</summary>
public sealed class ConsulOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Discovery:Consul";

    /// <summary>Consul's HTTP API, such as <c>http://127.0.0.1:8500</c>. Default: none, and Consul is not asked.</summary>
    [ConsulAddress]
    public string Address { get; set; } = "";

    /// <summary>Token of Consul's access lists, which needs <c>service:read</c> and <c>node:read</c>; a secret. Default: none.</summary>
    public string Token { get; set; } = "";

    /// <summary>Name of the service under which nodes are registered there. Default <c>modelhost-node</c>.</summary>
    [StringLength(128, MinimumLength = 1)]
    public string Service { get; set; } = "modelhost-node";

    /// <summary>The datacenter that is asked. Default: that of the agent at the address.</summary>
    [StringLength(128)]
    public string Datacenter { get; set; } = "";

    /// <summary>PEM file of the authority whose certificate an <c>https</c> address has to show. Default: those that the system trusts.</summary>
    public string CaFile { get; set; } = "";

    /// <summary>How long Consul holds a question until something changes. Default 1 min; 1 s to 10 min, which is the longest that Consul takes.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:10:00")]
    public TimeSpan Wait { get; set; } = TimeSpan.FromMinutes(1);

    /// <summary>Whether a token can be a header: whoever writes the message about it must not show it.</summary>
    internal bool IsTokenUsable => Token.Length <= 4096 && !Token.AsSpan().ContainsAnyExceptInRange('!', '~');
}

/// <summary>Lets through an <c>http</c> or <c>https</c> address without login, path and query; and none.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class ConsulAddressAttribute() : ValidationAttribute("an address of Consul is http or https with host and port alone, such as http://127.0.0.1:8500")
{
    public override bool IsValid(object? value) => value is "" || (value is string text && Uri.TryCreate(text, UriKind.Absolute, out var address)
        && address.Scheme is "http" or "https" && address.UserInfo.Length == 0 && address.PathAndQuery == "/" && address.Fragment.Length == 0);
}
