using System.Text;
using Google.Protobuf;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Artifacts;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>The models and backends of a node: a folder each, with a file in it that says what a pull installed.</summary>
/// <remarks>
/// What is being installed grows in <c>.staging/NAME</c> beside them and takes the place of what is there in one step, so that whoever looks finds the
/// old or the new, whole.
/// </remarks>
internal sealed class ArtifactFolders(string dataFolder)
{
    /// <summary>The file that says what a pull installed. Nothing that comes from elsewhere may have a name that begins so.</summary>
    public const string RecordFile = ".modelhost.json";

    /// <summary>What a backend says of itself, in LocalAI's words.</summary>
    public const string MetadataFile = "metadata.json";

    private const string Staging = ".staging", Removed = ".removed-";
    private const int MaxRecordBytes = 16 * 1024 * 1024, MaxMetadataBytes = 256 * 1024;
    private static readonly JsonParser s_parser = new(JsonParser.Settings.Default.WithIgnoreUnknownFields(true));

    /// <summary>Where models, or backends, lie.</summary>
    public string Root(ArtifactKind kind) => Path.Combine(dataFolder, kind == ArtifactKind.Model ? "models" : "backends");

    /// <summary>Where an artifact lies, or will.</summary>
    public string Of(ArtifactKind kind, string name) => Path.Combine(Root(kind), name);

    /// <summary>Where an artifact is put together.</summary>
    public string StagingOf(ArtifactKind kind, string name) => Path.Combine(Root(kind), Staging, name);

    /// <summary>What is put together there: a folder that is to take the artifact's place.</summary>
    public string TreeOf(ArtifactKind kind, string name) => Path.Combine(StagingOf(kind, name), "tree");

    /// <summary>Removes what deletions left, and brings back what an interrupted exchange took away.</summary>
    public void Recover()
    {
        foreach (var kind in (ArtifactKind[])[ArtifactKind.Model, ArtifactKind.Backend])
        {
            var staging = Path.Combine(Root(kind), Staging);
            foreach (var folder in Directory.Exists(staging) ? Directory.GetDirectories(staging) : [])
            {
                var old = Path.Combine(folder, "old");
                if (Directory.Exists(old) && !Directory.Exists(Of(kind, Path.GetFileName(folder))))
                    Directory.Move(old, Of(kind, Path.GetFileName(folder)));
                if (Path.GetFileName(folder).StartsWith(Removed, StringComparison.Ordinal))
                    Directory.Delete(folder, recursive: true);
            }
        }
    }

    /// <summary>Removes partial downloads that nothing has touched for a while and no pull is to go on with.</summary>
    public void Forget(DateTimeOffset untouchedSince, Func<ArtifactKind, string, bool> isWanted)
    {
        foreach (var kind in (ArtifactKind[])[ArtifactKind.Model, ArtifactKind.Backend])
        {
            var staging = Path.Combine(Root(kind), Staging);
            foreach (var folder in Directory.Exists(staging) ? Directory.GetDirectories(staging) : [])
            {
                var parts = Path.Combine(folder, "parts");
                var touched = Directory.Exists(parts) ? Directory.GetFiles(parts).Select(File.GetLastWriteTimeUtc).Append(Directory.GetLastWriteTimeUtc(parts)).Max()
                    : Directory.GetLastWriteTimeUtc(folder);
                if (touched < untouchedSince.UtcDateTime && !isWanted(kind, Path.GetFileName(folder)))
                    Directory.Delete(folder, recursive: true);
            }
        }
    }

    /// <summary>All that is there.</summary>
    public IReadOnlyList<Artifact> List() =>
    [
        .. ((ArtifactKind[])[ArtifactKind.Model, ArtifactKind.Backend]).SelectMany(kind => Names(kind).Select(name => Read(kind, name))),
    ];

    /// <summary>What a pull installed under a name; null: nothing.</summary>
    public Artifact? Installed(ArtifactKind kind, string name) =>
        Directory.Exists(Of(kind, name)) && Read(kind, name) is { PullId.Length: > 0 } artifact ? artifact : null;

    /// <summary>What was put together under a name, to its end; null: nothing.</summary>
    public Artifact? Staged(ArtifactKind kind, string name) =>
        Directory.Exists(TreeOf(kind, name)) && Read(kind, name, TreeOf(kind, name)) is { PullId.Length: > 0 } artifact ? artifact : null;

    /// <summary>Writes what an artifact says of itself into a folder that is to become it.</summary>
    public static void WriteRecord(string tree, Artifact artifact)
    {
        if (artifact.Kind == ArtifactKind.Backend)
            WriteInto(tree, MetadataFile, artifact.Metadata);
        WriteInto(tree, RecordFile, JsonFormatter.Default.Format(artifact));
    }

    /// <summary>Sees that what was put together is on the disk, and that it can take its place.</summary>
    /// <exception cref="DownloadException">What is there under the name is not for a pull to replace.</exception>
    public void Ready(ArtifactKind kind, string name)
    {
        CheckPlace(kind, name);
        Libc.SyncDisk(TreeOf(kind, name));
    }

    /// <summary>Puts what was put together, and is <see cref="Ready"/>, in an artifact's place.</summary>
    public void Install(ArtifactKind kind, string name)
    {
        CheckPlace(kind, name);
        var (target, tree) = (Of(kind, name), TreeOf(kind, name));
        if (!Directory.Exists(target))
        {
            Directory.Move(tree, target);
            return;
        }
        // both at once where the disk can; else for a moment there is none, and Recover knows which it was
        if (Libc.Exchange(tree, target))
            return;
        Directory.Move(target, Path.Combine(StagingOf(kind, name), "old"));
        Directory.Move(tree, target);
    }

    /// <summary>Takes an artifact away at once; its files go afterwards.</summary>
    /// <returns>What is left to be deleted; null: there was nothing.</returns>
    /// <exception cref="InvalidOperationException">No pull installed it.</exception>
    public string? Remove(ArtifactKind kind, string name)
    {
        if (!Directory.Exists(Of(kind, name)))
            return null;
        if (Installed(kind, name) is null)
            throw new InvalidOperationException($"'{name}' was not installed by a pull, and stays");
        var removed = Path.Combine(Root(kind), Staging, Removed + Guid.NewGuid().ToString("N"));
        Directory.CreateDirectory(Path.GetDirectoryName(removed)!);
        Directory.Move(Of(kind, name), removed);
        return removed;
    }

    /// <summary>The text of a plain file in a folder; null: there is none, or it is too long for what it is to be.</summary>
    public static string? TextOf(string folder, string file, int maxBytes = MaxMetadataBytes)
    {
        var found = new FileInfo(Path.Combine(folder, file));
        return found is { Exists: true, LinkTarget: null } && found.Length <= maxBytes ? File.ReadAllText(found.FullName, Encoding.UTF8) : null;
    }

    private IEnumerable<string> Names(ArtifactKind kind) => Directory.Exists(Root(kind))
        ? new DirectoryInfo(Root(kind)).EnumerateDirectories().Where(folder => folder.LinkTarget is null).Select(folder => folder.Name)
            .Where(name => ArtifactNames.NameFault(name) is null).Order(StringComparer.Ordinal)
        : [];

    private void CheckPlace(ArtifactKind kind, string name)
    {
        if (new FileInfo(Of(kind, name)).LinkTarget is not null || File.Exists(Of(kind, name)))
            throw new DownloadException("install_failed", $"{name} is a link or a file on the node, and stays as it is");
    }

    private Artifact Read(ArtifactKind kind, string name) => Read(kind, name, Of(kind, name));

    private static Artifact Read(ArtifactKind kind, string name, string folder)
    {
        Artifact? artifact = null;
        try
        {
            if (TextOf(folder, RecordFile, MaxRecordBytes) is { } text)
                artifact = s_parser.Parse<Artifact>(text);
        }
        catch (Exception e) when (e is InvalidProtocolBufferException or InvalidJsonException or IOException or UnauthorizedAccessException)
        {
            // a folder that somebody laid there, or is taking away
        }
        artifact ??= new Artifact();
        (artifact.Kind, artifact.Name) = (kind, name);
        if (artifact.PullId.Length == 0 && kind == ArtifactKind.Backend)
            artifact.Metadata = TextOf(folder, MetadataFile) ?? "";
        return artifact;
    }

    private static void WriteInto(string tree, string file, string text)
    {
        // what came with it may be a link, or a folder
        var path = Path.Combine(tree, file);
        if (Directory.Exists(path) && new FileInfo(path).LinkTarget is null)
            throw new DownloadException("install_failed", $"{file} is a folder in what was unpacked");
        File.Delete(path);
        using var target = new FileStream(path, FileMode.CreateNew, FileAccess.Write);
        target.Write(Encoding.UTF8.GetBytes(text));
    }
}
