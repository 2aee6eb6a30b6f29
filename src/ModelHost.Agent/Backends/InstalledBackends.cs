using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Core.Backends;
using ModelHost.Protocol;

namespace ModelHost.Agent.Backends;

/// <summary>A backend of this node and how it is started.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Runtime"><c>process</c>, <c>docker</c> or <c>external</c>.</param>
internal sealed record BackendInstall(string Name, string Runtime)
{
    /// <summary>Of a process: its folder.</summary>
    public string Folder { get; init; } = "";

    /// <summary>Another name that it answers to; empty: none.</summary>
    public string Alias { get; init; } = "";

    /// <summary>What the node's configuration says of it; null: it is installed in a folder.</summary>
    public NodeBackend? Settings { get; init; }
}

/// <summary>
/// The gRPC backends of this node: the folders in <c>backends</c> of the data folder, as the gallery lays them, and the entries of
/// <see cref="NodeOptions.Backends"/>, which come first.
/// </summary>
internal sealed class InstalledBackends(string dataFolder, NodeOptions options, TimeProvider time)
{
    private const int MaxBackends = 1000;
    private const int MaxMetadata = 1024 * 1024;
    private static readonly TimeSpan Fresh = TimeSpan.FromSeconds(2);

    // names under which LocalAI's model files ask for a backend, and that of its folder
    private static readonly Dictionary<string, string> Known = new()
    {
        ["llama"] = "llama-cpp",
        ["go-llama"] = "llama-cpp",
        ["ik_llama"] = "ik-llama-cpp",
        ["ik-llama"] = "ik-llama-cpp",
        ["embedded-store"] = "local-store",
        ["valkey"] = "valkey-store",
        ["stablediffusion"] = "stablediffusion-ggml",
        ["sentencetransformers"] = "transformers",
        ["huggingface-embeddings"] = "transformers",
        ["mamba"] = "transformers",
        ["transformers-musicgen"] = "transformers",
    };

    private readonly string _folder = Path.Combine(dataFolder, "backends");
    private volatile Listing? _listing;

    /// <summary>All of them; what changed inside of a folder is seen within seconds, one that came or went at once.</summary>
    public IReadOnlyList<BackendInstall> All
    {
        get
        {
            // asked before it is read: a report that says that a pull has ended has what it brought
            var changed = Directory.GetLastWriteTimeUtc(_folder);
            return _listing is { } known && known.Changed == changed && time.GetElapsedTime(known.At) < Fresh ? known.Backends
                : (_listing = new Listing(Read(), changed, time.GetTimestamp())).Backends;
        }
    }

    /// <summary>The backend that a name stands for, as it is now: its own, that of the one it is only another name for, or an alias.</summary>
    public BackendInstall? Find(string name)
    {
        var all = Read();
        BackendInstall? Named(string wanted) => all.FirstOrDefault(one => one.Name == wanted) ?? all.FirstOrDefault(one => one.Alias.Length > 0 && one.Alias == wanted);
        return Named(name) ?? (Known.TryGetValue(name, out var other) ? Named(other) : null);
    }

    /// <summary>Writes them into a report.</summary>
    public void Write(NodeReport report) => report.Backends.AddRange(All.SelectMany(Reported));

    // names that lead to one are names of it: the control plane looks no further
    private static IEnumerable<ReportedBackend> Reported(BackendInstall one)
    {
        var names = Known.Where(known => known.Value == one.Name).Select(known => known.Key).Prepend(one.Alias).Where(alias => alias.Length > 0).ToArray();
        return (names.Length == 0 ? [""] : names).Select(alias => new ReportedBackend { Name = one.Name, Runtime = one.Runtime, Alias = alias });
    }

    private List<BackendInstall> Read()
    {
        var found = options.Backends.Select(one => new BackendInstall(one.Key, one.Value.Address.Length > 0 ? "external" : "docker") { Settings = one.Value }).ToList();
        if (!Directory.Exists(_folder))
            return found;
        var metadata = Directory.EnumerateDirectories(_folder).Order(StringComparer.Ordinal).Take(MaxBackends)
            .Select(folder => (Name: Path.GetFileName(folder), Folder: folder))
            .Where(one => BackendCatalogue.IsInstallable(one.Name) && !options.Backends.ContainsKey(one.Name))
            .Select(one => (one.Name, one.Folder, Metadata: ReadMetadata(one.Folder))).ToArray();
        foreach (var (name, folder, about) in metadata)
        {
            // one that only names another has no program of its own
            var started = about.MetaBackendFor is { Length: > 0 } concrete ? metadata.FirstOrDefault(one => one.Name == concrete).Folder : folder;
            if (started is not null && IsProgram(Path.Combine(started, "run.sh")))
                found.Add(new BackendInstall(name, "process") { Folder = started, Alias = about.Alias is { } alias && BackendCatalogue.IsInstallable(alias) ? alias : "" });
        }
        return found;
    }

    private static bool IsProgram(string path) =>
        File.Exists(path) && (File.GetUnixFileMode(path) & (UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute)) != 0;

    private static BackendMetadata ReadMetadata(string folder)
    {
        try
        {
            var file = new FileInfo(Path.Combine(folder, "metadata.json"));
            return file.Exists && file.Length <= MaxMetadata
                ? JsonSerializer.Deserialize(File.ReadAllBytes(file.FullName), BackendMetadataJson.Default.BackendMetadata) ?? new() : new();
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            return new(); // it may be started all the same
        }
    }

    private sealed record Listing(IReadOnlyList<BackendInstall> Backends, DateTime Changed, long At);
}

/// <summary>What is read of a backend's <c>metadata.json</c>.</summary>
internal sealed record BackendMetadata
{
    public string? Alias { get; init; }
    public string? MetaBackendFor { get; init; }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(BackendMetadata))]
internal sealed partial class BackendMetadataJson : JsonSerializerContext;
