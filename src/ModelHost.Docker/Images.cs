namespace ModelHost.Docker;

/// <summary>One line of the list of images.</summary>
public sealed record ImageSummary
{
    /// <summary>The image's id, <c>sha256:…</c>.</summary>
    public required string Id { get; init; }

    /// <summary>Its names as <c>repository:tag</c>; empty for a dangling image.</summary>
    public IReadOnlyList<string> RepoTags { get; init; } = [];

    /// <summary>Its names as <c>repository@digest</c>; empty when it was never in a registry.</summary>
    public IReadOnlyList<string> RepoDigests { get; init; } = [];

    /// <summary>When it was built, to the second.</summary>
    public DateTimeOffset Created { get; init; }

    /// <summary>Bytes on disk, unpacked, layers shared with others included.</summary>
    public long SizeBytes { get; init; }

    /// <summary>Its labels.</summary>
    public IReadOnlyDictionary<string, string> Labels { get; init; } = new Dictionary<string, string>();
}

/// <summary>What the engine knows of one image.</summary>
public sealed record ImageDetails
{
    /// <summary>The image's id, <c>sha256:…</c>.</summary>
    public required string Id { get; init; }

    /// <summary>Its names as <c>repository:tag</c>.</summary>
    public IReadOnlyList<string> RepoTags { get; init; } = [];

    /// <summary>Its names as <c>repository@digest</c>.</summary>
    public IReadOnlyList<string> RepoDigests { get; init; } = [];

    /// <summary>When it was built; null when the image does not say.</summary>
    public DateTimeOffset? Created { get; init; }

    /// <summary>Its labels.</summary>
    public IReadOnlyDictionary<string, string> Labels { get; init; } = new Dictionary<string, string>();

    /// <summary>Processor architecture in Go's words, <c>amd64</c> for example.</summary>
    public string Architecture { get; init; } = "";
}

/// <summary>
/// How far a pull is. Layers that the engine already has are not counted. Within one pull neither bytes nor percent move back: what a retry
/// fetches a second time counts once.
/// </summary>
public sealed record PullProgress
{
    /// <summary>The engine's last words, for example <c>Downloading</c>, <c>Extracting</c> or <c>Digest: sha256:…</c>.</summary>
    public required string Status { get; init; }

    /// <summary>The layer that <see cref="Status"/> is about; null when it is about the whole.</summary>
    public string? Layer { get; init; }

    /// <summary>
    /// Whether something moved: bytes came, or a layer went on to its next step. Not so for what was said before, and for the seconds that an
    /// engine counts until it tries again.
    /// </summary>
    public bool Advanced { get; init; }

    /// <summary>Layers to pull, as far as known.</summary>
    public int Layers { get; init; }

    /// <summary>Layers downloaded and unpacked.</summary>
    public int LayersDone { get; init; }

    /// <summary>Layers downloaded, unpacked or not.</summary>
    public int LayersDownloaded { get; init; }

    /// <summary>Layers being unpacked now.</summary>
    public int LayersExtracting { get; init; }

    /// <summary>Compressed bytes downloaded.</summary>
    public long DoneBytes { get; init; }

    /// <summary>Compressed bytes to download, of the layers whose download has begun: it grows during the pull.</summary>
    public long TotalBytes { get; init; }

    /// <summary>
    /// How much is downloaded, 0 to 100; null while no size is known. It is <see cref="DoneBytes"/> of <see cref="TotalBytes"/> once all sizes are
    /// known; before, layers of unknown size count as the others do on average. At 100 layers may still be <see cref="LayersExtracting"/>.
    /// </summary>
    public double? Percent { get; init; }
}

/// <summary>What the removal of an image came to.</summary>
/// <param name="Untagged">Names and digests that are gone.</param>
/// <param name="Deleted">Ids of what is gone from the disk; empty when the image has other names.</param>
public sealed record ImageRemoval(IReadOnlyList<string> Untagged, IReadOnlyList<string> Deleted);

/// <summary>What a clean-up came to.</summary>
/// <param name="Untagged">Names and digests that are gone.</param>
/// <param name="Deleted">Ids of what is gone from the disk.</param>
/// <param name="ReclaimedBytes">Bytes of disk that are free again, as the engine reckons.</param>
public sealed record PruneReport(IReadOnlyList<string> Untagged, IReadOnlyList<string> Deleted, long ReclaimedBytes);

/// <summary>An image to build.</summary>
public sealed record BuildSpec
{
    /// <summary>Its name as <c>repository:tag</c>; null leaves it dangling.</summary>
    public string? Tag { get; init; }

    /// <summary>Path of the Dockerfile within the context.</summary>
    public string Dockerfile { get; init; } = "Dockerfile";

    /// <summary>Labels added to those of the Dockerfile.</summary>
    public IReadOnlyDictionary<string, string> Labels { get; init; } = new Dictionary<string, string>();

    /// <summary>Values of the Dockerfile's <c>ARG</c>s. They stay in the image's history: no place for secrets.</summary>
    public IReadOnlyDictionary<string, string> BuildArgs { get; init; } = new Dictionary<string, string>();

    /// <summary>Takes no step from an earlier build.</summary>
    public bool NoCache { get; init; }
}
