using System.ComponentModel.DataAnnotations;
using System.Net;

namespace ModelHost.Agent.Downloads;

/// <summary>How downloads are made, by the control plane and on every node. Section <c>Downloads</c>.</summary>
public sealed class DownloadOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Downloads";

    /// <summary>
    /// Networks (CIDR, separated by commas) that may be downloaded from although they are not public: <c>10.0.0.0/8,fd00::/8</c> for a mirror of
    /// the site. Default: none; loopback, private, link-local, shared and metadata addresses are refused, whatever name leads to them.
    /// </summary>
    [NetworkList]
    public string AllowedNetworks { get; set; } = "";

    /// <summary>
    /// HTTP proxy that downloads go through: <c>http://[USER:PASSWORD@]HOST:PORT</c>. It resolves the names then, and is to see to it that they lead to public
    /// addresses. Default: none, whatever variables such as <c>HTTPS_PROXY</c> say.
    /// </summary>
    [ProxyAddress]
    public string Proxy { get; set; } = "";

    /// <summary>
    /// Hosts (separated by commas) that are reached without the proxy: a name stands for all names below it too, an address for itself. Default: none. Names
    /// without a dot, those of the own network (<c>.local</c>, <c>.internal</c> and the like) and addresses that are not public never go through it.
    /// </summary>
    [HostList]
    public string NoProxy { get; set; } = "";

    /// <summary>Redirects followed for one request. Default 10, 0 to 20.</summary>
    [Range(0, 20)]
    public int MaxRedirects { get; set; } = 10;

    /// <summary>How long a connection, its TLS handshake included, may take. Default 15 s, 100 ms to 5 min.</summary>
    [Range(typeof(TimeSpan), "00:00:00.100", "00:05:00")]
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(15);

    /// <summary>
    /// How long a server may take to begin its answer, and for every 16 KiB of it: one that trickles is given up and asked again. Default 60 s,
    /// 100 ms to 1 h.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:00.100", "01:00:00")]
    public TimeSpan StallTimeout { get; set; } = TimeSpan.FromSeconds(60);

    /// <summary>Attempts in a row without a single byte, of each address, before the next mirror is tried. Default 5, 1 to 100.</summary>
    [Range(1, 100)]
    public int Attempts { get; set; } = 5;

    /// <summary>Wait before the second attempt; it doubles up to a minute, with a random part. Default 2 s, 10 ms to 1 min.</summary>
    [Range(typeof(TimeSpan), "00:00:00.010", "00:01:00")]
    public TimeSpan RetryDelay { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>Pulls under way on one node; the others wait. Default 2, 1 to 32.</summary>
    [Range(1, 32)]
    public int ParallelPulls { get; set; } = 2;

    /// <summary>Files downloaded at the same time within one pull. Default 4, 1 to 32.</summary>
    [Range(1, 32)]
    public int ParallelFiles { get; set; } = 4;

    /// <summary>
    /// How long a download that is whole waits for the word to take its place, since it was asked for last; then it is dropped, and its parts are kept as those of
    /// one that failed. Default 24 h, 1 h to 30 days: whoever waits for others asks every 10 minutes.
    /// </summary>
    [Range(typeof(TimeSpan), "01:00:00", "30.00:00:00")]
    public TimeSpan HoldFor { get; set; } = TimeSpan.FromDays(1);

    /// <summary>The largest file taken, and the most that one archive or image may unpack to, in bytes. Default 2 TiB.</summary>
    [Range(1, long.MaxValue)]
    public long MaxFileBytes { get; set; } = 2L << 40;

    /// <summary>Files and folders that one archive or image may hold. Default 200,000 (a Python backend has about 60,000).</summary>
    [Range(1, 10_000_000)]
    public int MaxArchiveEntries { get; set; } = 200_000;

    /// <summary>Bytes on the disk that a pull leaves free; one that would not is refused or stopped. Default 1 GiB.</summary>
    [Range(0, long.MaxValue)]
    public long ReservedDiskBytes { get; set; } = 1L << 30;

    /// <summary>Where <c>hf://</c> and <c>huggingface://</c> lead. Default <c>https://huggingface.co</c>.</summary>
    [WebAddress]
    public string HuggingFaceUrl { get; set; } = "https://huggingface.co";

    /// <summary>Where <c>github:</c> leads. Default <c>https://raw.githubusercontent.com</c>.</summary>
    [WebAddress]
    public string GitHubUrl { get; set; } = "https://raw.githubusercontent.com";

    /// <summary>Where <c>ollama://</c> leads. Default <c>https://registry.ollama.ai</c>.</summary>
    [WebAddress]
    public string OllamaUrl { get; set; } = "https://registry.ollama.ai";

    /// <summary>
    /// Registries (<c>host[:port]</c>, separated by commas) that are spoken to without TLS when a backend is unpacked from an image. Default: none.
    /// </summary>
    public string InsecureRegistries { get; set; } = "";

    internal IReadOnlyList<IPNetwork> Networks => NetworkListAttribute.Split(AllowedNetworks) ?? [];

    internal bool IsInsecure(string registry) =>
        InsecureRegistries.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Contains(registry, StringComparer.OrdinalIgnoreCase);
}

/// <summary>Lets through networks in CIDR notation, separated by commas, and nothing.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class NetworkListAttribute() : ValidationAttribute("networks are written as 10.0.0.0/8 or fd00::/8, separated by commas, without bits beyond the prefix")
{
    public static IReadOnlyList<IPNetwork>? Split(string text)
    {
        var networks = new List<IPNetwork>();
        foreach (var part in text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            if (!IPNetwork.TryParse(part, out var network))
                return null;
            networks.Add(network);
        }
        return networks;
    }

    public override bool IsValid(object? value) => value is null || (value is string text && Split(text) is not null);
}

/// <summary>Lets through http and https addresses without login, query and fragment.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class WebAddressAttribute() : ValidationAttribute("the address is http or https, without login, query and fragment")
{
    public override bool IsValid(object? value) => value is string text && Uri.TryCreate(text, UriKind.Absolute, out var url)
        && url.Scheme is "http" or "https" && url.UserInfo.Length == 0 && url.Query.Length == 0 && url.Fragment.Length == 0;
}
