using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Features.Deployments;
using ModelHost.Features.Galleries;

namespace ModelHost.Features.Backends;

/// <summary>Asks for a backend to be installed.</summary>
public sealed record BackendApply : StrictRequest
{
    /// <summary>Entry of a gallery: <c>gallery@name</c> or <c>name</c>; or a backend that ModelHost has itself, such as <c>vllm</c>.</summary>
    public string? Id { get; init; }

    /// <summary>Whether it is installed anew where it is there already. Default false.</summary>
    public bool? Force { get; init; }

    /// <summary>Of a backend that is an image: the release or tag. Default: that of the gallery, else the newest release.</summary>
    [StringLength(128)]
    public string? Version { get; init; }

    /// <summary>IDs or host names of the nodes it is installed on. Default: all of them, if it has a build for each.</summary>
    [MaxLength(256)]
    public IReadOnlyList<JsonElement>? Nodes { get; init; }
}

/// <summary>Asks for a backend to be installed on one node: by its name in a gallery, or from an address.</summary>
public sealed record NodeBackendInstall : StrictRequest
{
    /// <summary>Entry of a gallery: <c>gallery@name</c> or <c>name</c>.</summary>
    public string? Backend { get; init; }

    /// <summary>Where it comes from: <c>oci://</c>, <c>ocifile://</c>, <c>https://</c> or <c>file://</c>; in place of <c>backend</c>.</summary>
    public string? Uri { get; init; }

    /// <summary>Name of one that comes from an address. Default: the last part of that.</summary>
    public string? Name { get; init; }

    /// <summary>Another name that it answers to.</summary>
    public string? Alias { get; init; }

    /// <summary>JSON text of an array of galleries that are looked at in place of those that are known.</summary>
    public string? BackendGalleries { get; init; }

    /// <summary>Of a backend that is an image: the release or tag.</summary>
    [StringLength(128)]
    public string? Version { get; init; }

    /// <summary>Whether it is installed anew where it is there already. Default false.</summary>
    public bool? Force { get; init; }
}

/// <summary>Names a backend of a node.</summary>
public sealed record NodeBackendName : StrictRequest
{
    /// <summary>Its name.</summary>
    public string? Backend { get; init; }

    /// <summary>Of a backend that is an image: the release or tag. Where it is deleted: the one that goes, and nothing else.</summary>
    [StringLength(128)]
    public string? Version { get; init; }
}

/// <summary>What became of a request for a backend, in LocalAI's words.</summary>
/// <param name="Id">The job.</param>
/// <param name="StatusUrl">Where its status is read.</param>
/// <param name="Job">How it ended; with <c>?wait=true</c> only.</param>
internal sealed record BackendJob(string Id, string StatusUrl, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] JobStatus? Job = null);

/// <summary>What became of a request for a backend of one node.</summary>
/// <param name="JobId">The job.</param>
/// <param name="StatusUrl">Where its status is read, from the host on.</param>
/// <param name="Message">For people.</param>
/// <param name="Job">How it ended; with <c>?wait=true</c> only.</param>
internal sealed record NodeBackendJob(
    [property: JsonPropertyName("jobID")] string JobId, [property: JsonPropertyName("statusUrl")] string StatusUrl, string Message,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] JobStatus? Job = null);

/// <summary>A job of a backend, in the words of LocalAI's pages.</summary>
internal sealed record BackendJobRead
{
    public required double Progress { get; init; }
    public required string Message { get; init; }

    [JsonPropertyName("galleryElementName")]
    public required string GalleryElementName { get; init; }
    public required bool Processed { get; init; }
    public required bool Deletion { get; init; }
    public required bool Queued { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Error { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool Completed { get; init; }
}

/// <summary>Says for people what was done.</summary>
internal sealed record BackendMessage(string Message);

/// <summary>Why a build is not installed on all nodes, as LocalAI words it.</summary>
internal sealed record TargetRequired(string Error, string MetaAlternative)
{
    public string Code { get; } = "concrete_backend_requires_target";
}

/// <summary>An installed backend. Its first fields have the names of LocalAI's structure.</summary>
internal sealed record BackendRead
{
    [JsonPropertyName("Name")]
    public required string Name { get; init; }

    /// <summary>Its program, below the data folder of a node on another machine; empty: it is an image, or stands for another.</summary>
    [JsonPropertyName("RunFile")]
    public required string RunFile { get; init; }

    [JsonPropertyName("IsMeta")]
    public required bool IsMeta { get; init; }

    [JsonPropertyName("IsSystem")]
    public required bool IsSystem { get; init; }

    [JsonPropertyName("Metadata")]
    public required BackendMetadataRead? Metadata { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool UpgradeAvailable { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? AvailableVersion { get; init; }

    /// <summary>The nodes that have it; absent: there is but one node.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<BackendNodeRead>? Nodes { get; init; }
}

/// <summary>What is known of an installed backend.</summary>
internal sealed record BackendMetadataRead
{
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Alias { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? MetaBackendFor { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Name { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? GalleryUrl { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? InstalledAt { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Version { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Uri { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Digest { get; init; }
}

/// <summary>A node that has a backend.</summary>
internal sealed record BackendNodeRead
{
    public required string NodeId { get; init; }
    public required string NodeName { get; init; }

    /// <summary>The word of <c>/api/nodes</c>. Of a node that does not answer, the rest is what was known last.</summary>
    public required string NodeStatus { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Version { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Digest { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Uri { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? InstalledAt { get; init; }

    /// <summary>Of an image: all its tags there.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Versions { get; init; }
}

/// <summary>A backend of one node.</summary>
internal sealed record NodeBackendRead
{
    public required string Name { get; init; }
    public required bool IsSystem { get; init; }
    public required bool IsMeta { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? InstalledAt { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? GalleryUrl { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Version { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Uri { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Digest { get; init; }

    /// <summary>Of an image: all its tags there.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Versions { get; init; }

    /// <summary>Of an image: what its versions are there.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<NodeImageRead>? Images { get; init; }
}

/// <summary>An image of a backend on a node.</summary>
/// <param name="Version">Its version, as <c>versions</c> has it.</param>
/// <param name="Name">Repository and tag.</param>
/// <param name="Digest">Digest in its registry, or its id where it never was in one.</param>
/// <param name="SizeBytes">Bytes on the node's disk, layers shared with others included.</param>
/// <param name="PulledAt">When ModelHost pulled it; absent: somebody else brought it, and ModelHost does not delete it.</param>
internal sealed record NodeImageRead(
    string Version, string Name, string Digest, long SizeBytes, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] DateTimeOffset? PulledAt = null);

/// <summary>A backend that can be installed.</summary>
internal sealed record AvailableBackend
{
    public required string Name { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Description { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? License { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Urls { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Icon { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Tags { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<AvailableFile>? Files { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Size { get; init; }

    /// <summary>The gallery that has it.</summary>
    public required GalleryRead Gallery { get; init; }

    /// <summary>Whether a node has it; absent: none has.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool Installed { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Alias { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Uri { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Version { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<string>? Mirrors { get; init; }

    /// <summary>The build for each capability of a node.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyDictionary<string, string>? Capabilities { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Sha256 { get; init; }
}

/// <summary>A backend that can be asked for by its name, installed or not.</summary>
internal sealed record KnownBackendRead
{
    public required string Name { get; init; }
    public required string Modality { get; init; }
    public required bool AutoDetect { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Description { get; init; }
    public required bool Installed { get; init; }
}

/// <summary>A backend that is not everywhere what it could be.</summary>
internal sealed record UpgradeRead
{
    public required string BackendName { get; init; }
    public required string InstalledVersion { get; init; }
    public required string AvailableVersion { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? InstalledDigest { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? AvailableDigest { get; init; }

    /// <summary>The nodes that have something else than most; absent: all have the same.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<DriftRead>? NodeDrift { get; init; }
}

/// <summary>What a node has of a backend, where most have something else.</summary>
internal sealed record DriftRead(
    string NodeId, string NodeName,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Version,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Digest);
