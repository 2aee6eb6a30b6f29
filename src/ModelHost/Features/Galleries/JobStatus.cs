using System.Globalization;
using System.Text.Json.Serialization;

namespace ModelHost.Features.Galleries;

/// <summary>Words for what a job is at.</summary>
internal static class JobPhases
{
    public const string Queued = "queued", Resolving = "resolving", Downloading = "downloading", Verifying = "verifying", Committing = "committing", Persisting = "persisting";
}

/// <summary>Where a job stands, in the documented shape.</summary>
internal sealed record JobStatus
{
    /// <summary>Whether something is deleted.</summary>
    public bool Deletion { get; init; }

    /// <summary>The file that is written; empty: none.</summary>
    public string FileName { get; init; } = "";

    /// <summary>Why it failed; absent: it did not.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Error { get; init; }

    /// <summary>Whether it has ended, well or not.</summary>
    public bool Processed { get; init; }

    /// <summary>What goes on, for people: <c>queued</c>, <c>completed</c>, <c>cancelled</c>, or <c>error:</c> and the reason among others.</summary>
    public string Message { get; init; } = "";

    /// <summary>What is to be said beside the message when it has ended well; of this process alone.</summary>
    [JsonIgnore]
    public string? Note { get; init; }

    /// <summary>What the message says beside the nodes that are waited for; of this process alone.</summary>
    [JsonIgnore]
    public string Step { get; init; } = "";

    /// <summary>Percent, 0 to 100.</summary>
    public double Progress { get; init; }

    /// <summary>queued, resolving, downloading, verifying, committing or persisting; absent: it has ended.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Phase { get; init; }

    /// <summary>Bytes so far of the file.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public long CurrentBytes { get; init; }

    /// <summary>Bytes of the file; absent: not known.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public long TotalBytes { get; init; }

    /// <summary>Size of the file, for people.</summary>
    public string FileSize { get; init; } = "";

    /// <summary>What is there of it, for people.</summary>
    public string DownloadedSize { get; init; } = "";

    /// <summary>What is installed or deleted.</summary>
    public string GalleryElementName { get; init; } = "";

    /// <summary>Whether it was cancelled.</summary>
    public bool Cancelled { get; init; }

    /// <summary>Whether it can be cancelled now.</summary>
    public bool Cancellable { get; init; }

    /// <summary>Whether it has passed the point from which it is done whole, also after a restart; absent: it has not, or has ended.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool Committed { get; init; }

    /// <summary>How far it is on each node; absent: it is at none.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<JobNode>? Nodes { get; init; }

    /// <summary>What is done: <c>model.install</c>, <c>model.delete</c>, <c>backend.install</c> or <c>backend.delete</c>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Kind { get; init; }

    /// <summary>When it was asked for.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? CreatedAt { get; init; }

    /// <summary>When it ended; absent: it has not.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? FinishedAt { get; init; }

    /// <summary>The same at another step.</summary>
    public JobStatus At(string step) => (this with { Step = step }).Told();

    /// <summary>The same with a message that says what goes on and which nodes are waited for: those that go on although they have an error.</summary>
    private JobStatus Told() => this with
    {
        Message = string.Concat([Step, .. (Nodes ?? []).Where(node => node.IsWaitedFor).Select(node => $"; {node.NodeName}: {node.Error}")]),
    };

    /// <summary>The same with a node's figures, which stand for the whole of it too.</summary>
    public JobStatus With(JobNode node) => (this with
    {
        Nodes = [.. (Nodes ?? []).Where(one => one.NodeId != node.NodeId).Append(node).OrderBy(one => one.NodeId.Length).ThenBy(one => one.NodeId, StringComparer.Ordinal)],
    }).Told();

    /// <summary>A size for people: one decimal, binary units.</summary>
    public static string Size(long bytes)
    {
        string[] units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        var (value, unit) = ((double)bytes, 0);
        for (; value >= 1024 && unit < units.Length - 1; unit++)
            value /= 1024;
        return string.Create(CultureInfo.InvariantCulture, $"{value:0.0} {units[unit]}");
    }
}

/// <summary>How far a job is on one node.</summary>
internal sealed record JobNode
{
    /// <summary>What is said of one that does not answer.</summary>
    public const string Silent = "the node does not answer; it is waited for";

    /// <summary>Whether it does not answer.</summary>
    [JsonIgnore]
    public bool IsWaitedFor => Error == Silent;

    /// <summary>The node's id in the API.</summary>
    public required string NodeId { get; init; }

    /// <summary>Its host name.</summary>
    public required string NodeName { get; init; }

    /// <summary>queued, downloading, running_on_worker, success or error.</summary>
    public required string Status { get; init; }

    /// <summary>The file that is written.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? FileName { get; init; }

    /// <summary>Its size so far, for people.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Current { get; init; }

    /// <summary>Its size, for people.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Total { get; init; }

    /// <summary>Percent, 0 to 100.</summary>
    public double Percentage { get; init; }

    /// <summary>As in the whole.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Phase { get; init; }

    /// <summary>Why it failed there; or, while it goes on, that the node does not answer.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Error { get; init; }
}

/// <summary>How jobs are stored and shown.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(JobStatus))]
internal sealed partial class JobJson : JsonSerializerContext;
