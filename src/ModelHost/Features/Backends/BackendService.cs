using System.Text.Json;
using Microsoft.Extensions.Options;
using ModelHost.Common;
using ModelHost.Core;
using ModelHost.Core.Artifacts;
using ModelHost.Core.Engines;
using ModelHost.Core.Galleries;
using ModelHost.Features.Deployments;
using ModelHost.Features.Galleries;
using ModelHost.Features.Nodes;

namespace ModelHost.Features.Backends;

/// <summary>Takes requests for backends: what can be judged at once is refused at once, the rest is a job.</summary>
internal sealed class BackendService(
    JobBook jobs, BackendShelves shelves, BackendInventory inventory, BackendRemoval removal, NodeRegistry nodes, NodeService stored, GallerySources sources, IOptions<GalleryOptions> options)
{
    private const int MaxId = 320, MaxUri = 2048, MaxGalleries = 16, MaxGalleryText = 64 * 1024;

    /// <summary>Whether there are several nodes: what is for one machine is not meant for all of them then.</summary>
    public bool IsDistributed => nodes.All.Skip(1).Any();

    /// <summary>Asks for an installation.</summary>
    public async Task<Result<JobEntry>> ApplyAsync(BackendApply request, CancellationToken cancellationToken)
    {
        if ((DeploymentRules.Unknown(request) ?? Problems.Check(request) ?? IdFault("id", request.Id) ?? VersionFault(request.Version)) is { } fault)
            return fault;
        var known = await inventory.NamesAsync(cancellationToken);
        if (!NodeTargets.Find(known, NodeTargets.Words(request.Nodes)).TryGet(out var targets, out fault))
            return fault;
        return await AddAsync(new BackendInstall
        {
            Id = request.Id!,
            Version = request.Version ?? "",
            Force = request.Force == true || request.Version is { Length: > 0 },
            Nodes = targets.Length > 0 ? targets : [.. known.Keys], // those of now, whichever are there when it is resumed
        }, request.Id!, cancellationToken);
    }

    /// <summary>Looks whether a request would bring a build for one kind of machine to all nodes; null: it would not.</summary>
    public async Task<TargetRequired?> GuardAsync(BackendApply request, CancellationToken cancellationToken)
    {
        if (!IsDistributed || request.Nodes is { Count: > 0 } || string.IsNullOrEmpty(request.Id))
            return null;
        var shelf = await shelves.ReadAsync(null, cancellationToken);
        if (!shelf.Find(request.Id).TryGet(out var found, out _) || found.Entry.IsMeta)
            return null; // what is unknown the job says
        var meta = shelf.MetaOf(found.Entry);
        return new TargetRequired($"Backend \"{request.Id}\" is a hardware-specific build and won't run correctly on every node in this cluster. Install it on specific nodes:\n\n"
            + $"  POST /api/nodes/{{node_id}}/backends/install\n  {{\"backend\": \"{request.Id}\"}}"
            + (meta.Length > 0 ? $"\n\nTo install across all nodes, use the auto-resolving backend \"{meta}\": each node picks its own build by its hardware." : ""), meta);
    }

    /// <summary>Asks for an upgrade, of the nodes that have it if none are named.</summary>
    public async Task<Result<JobEntry>> UpgradeAsync(string name, string[]? only, string? version, CancellationToken cancellationToken)
    {
        if ((IdFault("name", name) ?? VersionFault(version)) is { } fault)
            return fault;
        if (!NodeTargets.Find(await inventory.NamesAsync(cancellationToken), only).TryGet(out var targets, out fault))
            return fault;
        return await AddAsync(new BackendInstall { Id = name, Version = version ?? "", Force = true, IsUpgrade = true, Nodes = targets }, name, cancellationToken);
    }

    /// <summary>Asks for a deletion, from the nodes that have it if none are named.</summary>
    public async Task<Result<JobEntry>> DeleteAsync(string name, string[]? only, string? version, CancellationToken cancellationToken)
    {
        if ((NameFault("name", name) ?? DeletedVersionFault(version)) is { } fault)
            return fault;
        if (!NodeTargets.Find(await inventory.NamesAsync(cancellationToken), only).TryGet(out var targets, out fault))
            return fault;
        return await jobs.AddAsync(new JobRequest(BackendDeleteHandler.JobKind, Subject(name), name, GalleryJson.Write(new BackendDeletion(name, targets, version ?? "")), IsDeletion: true), cancellationToken);
    }

    /// <summary>Asks for an installation on one node.</summary>
    public async Task<Result<JobEntry>> InstallOnAsync(int nodeId, NodeBackendInstall request, CancellationToken cancellationToken)
    {
        if ((await stored.FindAsync(nodeId, cancellationToken)).Failure is { } unknown)
            return unknown;
        if ((DeploymentRules.Unknown(request) ?? Problems.Check(request) ?? VersionFault(request.Version)) is { } fault)
            return fault;
        if (!Galleries(request.BackendGalleries).TryGet(out var galleries, out fault))
            return fault;
        var install = new BackendInstall
        {
            Version = request.Version ?? "",
            Force = request.Force == true || request.Version is { Length: > 0 },
            Nodes = [nodeId],
            Galleries = galleries.Length > 0 ? galleries : null,
        };
        if (request.Uri is not { Length: > 0 } uri)
        {
            return IdFault("backend", request.Backend) is { } missing
                ? string.IsNullOrEmpty(request.Backend) ? Failure.Invalid("backend", "backend name or uri required") : missing
                : await AddAsync(install with { Id = request.Backend! }, request.Backend!, cancellationToken);
        }
        if (request.Backend is { Length: > 0 })
            return Failure.Invalid("uri", "is given together with a backend");
        if (uri.Length > MaxUri || !ArtifactUri.Parse(uri).TryGet(out var parsed, out fault))
            return Failure.Invalid("uri", uri.Length > MaxUri ? $"is longer than {MaxUri} characters" : ArtifactUri.Parse(uri).Failure!.Detail);
        var name = request.Name is { Length: > 0 } given ? given : NameIn(parsed);
        if ((NameFault("name", name) ?? (request.Alias is { Length: > 0 } alias ? NameFault("alias", alias) : null)) is { } bad)
            return bad;
        return await AddAsync(install with { Uri = uri, Name = name, Alias = request.Alias ?? "" }, name, cancellationToken);
    }

    /// <summary>Asks for an upgrade of one node.</summary>
    public async Task<Result<JobEntry>> UpgradeOnAsync(int nodeId, NodeBackendName request, CancellationToken cancellationToken)
    {
        if ((await stored.FindAsync(nodeId, cancellationToken)).Failure is { } unknown)
            return unknown;
        if ((DeploymentRules.Unknown(request) ?? Problems.Check(request) ?? VersionFault(request.Version) ?? IdFault("backend", request.Backend)) is { } fault)
            return fault;
        return await AddAsync(new BackendInstall { Id = request.Backend!, Version = request.Version ?? "", Force = true, IsUpgrade = true, Nodes = [nodeId] }, request.Backend!, cancellationToken);
    }

    /// <summary>Deletes a backend, or one version of it, from one node.</summary>
    /// <returns>What stays, for people; empty: nothing.</returns>
    public async Task<Result<string>> DeleteFromAsync(int nodeId, NodeBackendName request, CancellationToken cancellationToken)
    {
        if ((await stored.FindAsync(nodeId, cancellationToken)).Failure is { } unknown)
            return unknown;
        if ((DeploymentRules.Unknown(request) ?? Problems.Check(request) ?? NameFault("backend", request.Backend) ?? DeletedVersionFault(request.Version)) is { } fault)
            return fault;
        return nodes.Find(nodeId) is null ? NodeFailures.Unreachable(nodeId) : await removal.RemoveAsync(new BackendDeletion(request.Backend!, [nodeId], request.Version ?? ""), cancellationToken);
    }

    /// <summary>The backends of one node.</summary>
    public async Task<Result<IReadOnlyList<NodeBackendRead>>> ListOnAsync(int nodeId, CancellationToken cancellationToken)
    {
        if ((await stored.FindAsync(nodeId, cancellationToken)).Failure is { } unknown)
            return unknown;
        if (nodes.Find(nodeId) is not { } node || await inventory.ReadAsync(node, cancellationToken) is not { IsCurrent: true, Backends: var has })
            return NodeFailures.Unreachable(nodeId);
        return has.Select(BackendReads.OnNode).ToArray();
    }

    /// <summary>What can be installed on the nodes there are; on any, if none has told what it is.</summary>
    public async Task<IReadOnlyList<AvailableBackend>> AvailableAsync(CancellationToken cancellationToken)
    {
        var shelf = await shelves.ReadAsync(null, cancellationToken);
        var installed = (await inventory.ListAsync(cancellationToken)).Select(here => here.Name).ToHashSet(StringComparer.OrdinalIgnoreCase);
        var names = await inventory.NamesAsync(cancellationToken);
        var able = nodes.All.Select(node => (node.Id, node.Report)).Where(node => node.Report is not null)
            .Select(node => NodeCapability.Of(names.GetValueOrDefault(node.Id) ?? "", node.Report!, options.Value.Capabilities)).Distinct().ToArray();
        return [.. shelf.Entries.Where(one => able.Length == 0 || able.Any(capability => BackendChoice.IsFor(one.Entry, capability)))
            .Select(one => BackendReads.Available(one, installed.Contains(GalleryNames.ToInstalled(one.Entry.Name))))];
    }

    private Task<Result<JobEntry>> AddAsync(BackendInstall install, string element, CancellationToken cancellationToken) =>
        jobs.AddAsync(new JobRequest(BackendInstallHandler.JobKind, Subject(element), element[..Math.Min(element.Length, 255)], GalleryJson.Write(install)), cancellationToken);

    // what chooses builds and what is built may be asked for at the same time: the node does one after the other
    private static string Subject(string name) => "backend:" + name[(name.IndexOf('@', StringComparison.Ordinal) + 1)..].ToLowerInvariant() is var subject ? subject[..Math.Min(subject.Length, 255)] : "";

    private Result<GalleryRead[]> Galleries(string? json)
    {
        if (string.IsNullOrWhiteSpace(json))
            return Array.Empty<GalleryRead>();
        try
        {
            if (json.Length <= MaxGalleryText && JsonSerializer.Deserialize<GalleryAdd[]>(json, GalleryJson.Options) is { Length: > 0 and <= MaxGalleries } given && Array.TrueForAll(given, one => one is not null))
            {
                var fault = given.Select(one => one.Name is null || !GalleryBook.Name().IsMatch(one.Name) ? "a gallery has no name, or one that is none"
                    : (one.Mirrors ?? []).Prepend(one.Url ?? "").Select(url => sources.Fault(url)).FirstOrDefault(found => found is not null) is { } bad ? $"{one.Name}: {bad}" : null).FirstOrDefault(found => found is not null);
                return fault is null ? given.Select(one => new GalleryRead { Name = one.Name!, Url = one.Url!, Mirrors = one.Mirrors is { Count: > 0 } mirrors ? mirrors : null }).ToArray()
                    : Failure.Invalid("backend_galleries", fault);
            }
        }
        catch (JsonException)
        {
            // as a text that is something else
        }
        return Failure.Invalid("backend_galleries", $"is no JSON text of an array of 1 to {MaxGalleries} galleries");
    }

    private static string NameIn(ArtifactUri uri)
    {
        var last = uri is ArtifactUri.Image image ? image.Repository[(image.Repository.LastIndexOf('/') + 1)..] : uri.FileName;
        foreach (var end in (string[])[".tar.gz", ".tgz", ".tar.zst", ".tar", ".zip"])
        {
            if (last.EndsWith(end, StringComparison.OrdinalIgnoreCase))
                return last[..^end.Length];
        }
        return last;
    }

    private static Failure? IdFault(string field, string? id) => string.IsNullOrWhiteSpace(id) ? Failure.Invalid(field, "is required")
        : id.Length > MaxId || id.Any(char.IsControl) ? Failure.Invalid(field, $"is longer than {MaxId} characters, or holds control characters") : null;

    private static Failure? NameFault(string field, string? name) => string.IsNullOrEmpty(name) ? Failure.Invalid(field, "is required")
        : BackendPlan.NameFault(name) is { } fault ? Failure.Invalid(field, fault) : null;

    // whoever meant one version, and had none at hand, did not mean all of it
    private static Failure? DeletedVersionFault(string? version) => version is { Length: 0 } ? Failure.Invalid("version", "is empty; without it the backend itself is deleted") : VersionFault(version);

    private static Failure? VersionFault(string? version) =>
        version is { Length: > 0 } && !EngineImage.IsValidVersion(version) ? Failure.Invalid("version", "is no release and no tag of an image") : null;
}
