using System.ComponentModel.DataAnnotations;
using ModelHost.Agent.Backends;
using ModelHost.Agent.Downloads;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;

namespace ModelHost.Agent;

/// <summary>How this machine runs engines. Section <c>Node</c>.</summary>
public sealed class NodeOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Node";

    /// <summary>Docker Engine API endpoint. Default <c>unix:///var/run/docker.sock</c>; <c>DOCKER_HOST</c> is honoured.</summary>
    [Required]
    public string DockerHost { get; set; } = "unix:///var/run/docker.sock";

    /// <summary>
    /// Endpoint of Podman's service, which speaks Docker's API beside its own. Default: <c>/run/podman/podman.sock</c> or
    /// <c>$XDG_RUNTIME_DIR/podman/podman.sock</c>, where one of them is there at the start; empty: none.
    /// </summary>
    public string PodmanHost { get; set; } = "";

    /// <summary>
    /// Whether engines may be started as plain processes: the built-in simulator, and backends in the data folder's <c>backends</c>, which allow it by being
    /// there. Default false; on in the demo.
    /// </summary>
    public bool ProcessRuntime { get; set; }

    /// <summary>The <c>nvidia-smi</c> to ask: a path, or a name looked up on <c>PATH</c>. Default <c>nvidia-smi</c>.</summary>
    [Required]
    public string NvidiaSmi { get; set; } = "nvidia-smi";

    /// <summary>
    /// How long <see cref="NvidiaSmi"/> may take to answer before it is killed and the figures count as old. Default 15 s, 1 s to 2 min: without
    /// persistence mode a card wakes for seconds, and a hung driver never answers.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:02:00")]
    public TimeSpan NvidiaSmiTimeout { get; set; } = TimeSpan.FromSeconds(15);

    /// <summary>First loopback port for engines. Default 41000.</summary>
    [Range(1024, 65535)]
    public int EnginePortFirst { get; set; } = 41000;

    /// <summary>Last loopback port for engines. Default 41999.</summary>
    [Range(1024, 65535)]
    public int EnginePortLast { get; set; } = 41999;

    /// <summary>
    /// Image repository used in place of the recipe's, for sites with a mirror or a registry of their own: <c>[host[:port]/]path</c> in lower case,
    /// without scheme, tag, digest or login. Default: the recipe's.
    /// </summary>
    [ImageRepository]
    public string ImageRepository { get; set; } = "";

    /// <summary>
    /// Logins of registries, for the pulls of images by this node's container engines and for <c>oci://</c> and <c>ollama://</c>:
    /// <c>Node:Registries:0:Host</c>, <c>Username</c>, and <c>Password</c> or <c>PasswordFile</c>. Default: none.
    /// </summary>
    [NodeRegistries]
    public IList<NodeRegistry> Registries { get; } = [];

    /// <summary>
    /// How long nothing may come of an image before its pull is given up. Counted while something is still to be downloaded, from the last byte or
    /// finished step; the engine's own retries fit in. Default 2 min, 1 s to 1 h.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:01", "01:00:00")]
    public TimeSpan PullStallTimeout { get; set; } = TimeSpan.FromMinutes(2);

    /// <summary>Folder mounted as the Hugging Face cache of every engine. Default <c>models/huggingface</c> in the data folder.</summary>
    public string HuggingFaceCache { get; set; } = "";

    /// <summary>
    /// Folder of this node with Python wheels that deployments may name in <c>extra_packages</c>, and in which what these require is looked up.
    /// Links in it count as absent. Default: none.
    /// </summary>
    public string WheelFolder { get; set; } = "";

    /// <summary>Whether extra packages come from <see cref="WheelFolder"/> alone, without any index. Default false.</summary>
    public bool PackageNoIndex { get; set; }

    /// <summary>
    /// Package index (PEP 503) that extra packages come from: an http or https address without login, which would stay in the images. Default: the
    /// installer's.
    /// </summary>
    [PackageIndex]
    public string PackageIndexUrl { get; set; } = "";

    /// <summary>How long the installation of extra packages may take. Default 15 min, 1 s to 6 h.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "06:00:00")]
    public TimeSpan PackageTimeout { get; set; } = TimeSpan.FromMinutes(15);

    /// <summary>
    /// Folders of this node from which models and adapters may be served by their path, separated by commas: absolute, without symbolic links,
    /// blanks, <c>.</c> and <c>..</c>, and not the root. Everything below is shown to whoever may start deployments. Default: none.
    /// </summary>
    [ModelFolderList]
    public string ModelFolders { get; set; } = "";

    /// <summary>
    /// gRPC backends that are not installed in a folder, by the name that deployments ask for: <c>Node:Backends:NAME:Image</c>, or <c>Node:Backends:NAME:Address</c>
    /// and <c>Token</c>. Default: none.
    /// </summary>
    [NodeBackends]
    public Dictionary<string, NodeBackend> Backends { get; } = [];

    /// <summary>How long a gRPC backend may take to load a model. Default 30 min, 1 s to 1 day.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan BackendLoadTimeout { get; set; } = TimeSpan.FromMinutes(30);

    /// <summary>How long an engine may take to end before it is killed. Default 30 s, 1 s to 10 min.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:10:00")]
    public TimeSpan StopGrace { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Time between two readings of an engine's metrics. Default 5 s, 1 s to 5 min.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:05:00")]
    public TimeSpan MetricsInterval { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>
    /// How long the end of an engine waits for its last figures: for the engine to tell them, and for a report to take them. Default: 3 s and 5 s. No setting, since an
    /// engine too busy to tell is to be ended all the same.
    /// </summary>
    internal (TimeSpan Told, TimeSpan Reported) LastCountDeadlines { get; set; } = (TimeSpan.FromSeconds(3), TimeSpan.FromSeconds(5));

    /// <summary>Bytes of log kept per run, in two files of half of it each. Default 64 MiB.</summary>
    [Range(64 * 1024, long.MaxValue)]
    public long LogBytes { get; set; } = 64L * 1024 * 1024;

    /// <summary>
    /// IP address on which the public ports of deployments are listened on. Default <c>127.0.0.1</c>, this machine alone; <c>0.0.0.0</c> or <c>::</c> is
    /// every address, in cleartext; empty: nowhere.
    /// </summary>
    [AddressText]
    public string DirectListen { get; set; } = "127.0.0.1";

    /// <summary>Who may use the public ports. Default <see cref="DirectAccessMode.Keys"/>.</summary>
    [EnumDataType(typeof(DirectAccessMode))]
    public DirectAccessMode DirectAccess { get; set; } = DirectAccessMode.Keys;

    /// <summary>How long the end of the process waits for requests under way on the public ports. Default 30 s, up to 1 h.</summary>
    [Range(typeof(TimeSpan), "00:00:00", "01:00:00")]
    public TimeSpan DrainTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>The repository that images of a recipe of ModelHost itself come from on this node.</summary>
    internal string RepositoryOf(string recipeImage) => ImageRepository.Length > 0 ? ImageRepository : recipeImage;

    /// <summary><see cref="ModelFolders"/>, one by one.</summary>
    internal IReadOnlyList<string> AllowedModelFolders => ModelFolderListAttribute.Split(ModelFolders);
}

/// <summary>Who may send requests to the public ports of deployments.</summary>
public enum DirectAccessMode
{
    /// <summary>
    /// Who may send them to the gateway: API keys within their limits. Until a permanent one exists also programs on this machine, where the ports are
    /// reached from it alone, and the admin key.
    /// </summary>
    Keys,
    /// <summary>Everybody who reaches them.</summary>
    Open,
}

/// <summary>Lets through an IP address, and nothing.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class AddressTextAttribute() : ValidationAttribute("this is no IP address such as 127.0.0.1 or 0.0.0.0")
{
    public override bool IsValid(object? value) => value is null or "" || (value is string text && System.Net.IPAddress.TryParse(text, out _));
}

/// <summary>Lets through what names a repository, and nothing.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class ImageRepositoryAttribute() : ValidationAttribute(
    "a repository is [host[:port]/]path in lower case, without scheme, tag, digest or login")
{
    public override bool IsValid(object? value) => value is null or "" || (value is string text && EngineImage.IsValidRepository(text));
}

/// <summary>Lets through plain absolute paths, separated by commas, and nothing.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class ModelFolderListAttribute() : ValidationAttribute(
    "the folders are absolute paths separated by commas, of letters, digits and . _ @ + - between their slashes, without '.' and '..', and not the root")
{
    public static IReadOnlyList<string> Split(string folders) =>
        [.. folders.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Select(folder => folder.Length > 1 ? folder.TrimEnd('/') : folder)];

    public override bool IsValid(object? value) =>
        value is null || (value is string text && Split(text).All(folder => ModelSource.IsPath(folder) && ModelSource.Fault(folder) is null));
}

/// <summary>Lets through the address of a package index, and nothing.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class PackageIndexAttribute() : ValidationAttribute("the index is an http or https address without login and without blanks")
{
    public override bool IsValid(object? value) => value is null or ""
        || (value is string text && Uri.TryCreate(text, UriKind.Absolute, out var url) && url.Scheme is "http" or "https" && url.UserInfo.Length == 0
            && !text.Any(c => char.IsControl(c) || char.IsWhiteSpace(c)));
}

/// <summary>Who this node is and where it keeps its things.</summary>
/// <param name="ClusterId">Id of the cluster, written into the labels of its containers.</param>
/// <param name="NodeId">Id of this node.</param>
/// <param name="DataFolder">The data folder.</param>
public sealed record NodeIdentity(string ClusterId, string NodeId, string DataFolder)
{
    /// <summary>Where models lie that were installed; they may be served by their path.</summary>
    public string ModelsFolder => Path.Combine(Path.GetFullPath(DataFolder), "models");
}
