using ModelHost.Core.Backends;
using ModelHost.Features.Galleries;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Backends;

/// <summary>Asks nodes which backends they have. What a node says goes before what is stored; what is stored stands in for one that does not answer.</summary>
internal sealed partial class BackendInventory(BackendBook book, NodeRegistry nodes, NodeService stored, TimeProvider time, ILogger<BackendInventory> logger)
{
    private const int MaxRepositories = 100; // as many as a node lists at once
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);
    private static readonly string[] BuiltInRepositories = [.. BackendCatalogue.BuiltIn.Values.Select(recipe => recipe.Image).Where(image => image.Length > 0).Distinct()];

    /// <summary>The backends of all linked nodes, by node and name.</summary>
    public async Task<IReadOnlyList<BackendHere>> ListAsync(CancellationToken cancellationToken)
    {
        var (rows, names) = (await book.ListAsync(cancellationToken), await NamesAsync(cancellationToken));
        var each = await Task.WhenAll(nodes.All.OrderBy(node => node.Id).Select(node => ReadAsync(node, names, [.. rows[node.Id]], cancellationToken)));
        return [.. each.SelectMany(one => one.Backends)];
    }

    /// <summary>The backends of one node, whether it answered, and why its images may be missing (empty: they are all there).</summary>
    public async Task<(IReadOnlyList<BackendHere> Backends, bool IsCurrent, string ImageError)> ReadAsync(NodeHandle node, CancellationToken cancellationToken) =>
        await ReadAsync(node, await NamesAsync(cancellationToken), [.. (await book.ListAsync(cancellationToken))[node.Id]], cancellationToken);

    /// <summary>The host names of the linked nodes, by their ids.</summary>
    public async Task<IReadOnlyDictionary<int, string>> NamesAsync(CancellationToken cancellationToken)
    {
        var names = await stored.NamesAsync(cancellationToken);
        return nodes.All.OrderBy(node => node.Id).ToDictionary(node => node.Id, node => names.GetValueOrDefault(node.Id) ?? $"{node.Id}");
    }

    private async Task<(IReadOnlyList<BackendHere> Backends, bool IsCurrent, string ImageError)> ReadAsync(
        NodeHandle node, IReadOnlyDictionary<int, string> names, List<InstalledBackend> rows, CancellationToken cancellationToken)
    {
        var has = node.Report is null ? null : await AskAsync(node, rows, cancellationToken);
        return ([.. BackendHere.Of(new BackendNode(node.Id, names.GetValueOrDefault(node.Id) ?? $"{node.Id}", NodeService.Status(node, time.GetUtcNow())), rows, has).OrderBy(one => one.Name, StringComparer.Ordinal)],
            has is not null, has?.ImageError ?? "");
    }

    private async Task<ArtifactsReply?> AskAsync(NodeHandle node, List<InstalledBackend> rows, CancellationToken cancellationToken)
    {
        var request = new ArtifactsRequest();
        // a node without an engine of containers has no images, and would wait for it
        if (node.Report is { } report && ContainerRuntimes.AreIn(report.Runtimes))
            request.ImageRepositories.AddRange(rows.Where(row => GalleryJson.Read<BackendDetails>(row.Details).Form == BackendForm.Image)
                .Select(row => ImageName.Repository(row.Uri)).Concat(BuiltInRepositories).Distinct().Take(MaxRepositories));
        using var patience = new CancellationTokenSource(Patience, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(patience.Token, cancellationToken);
        try
        {
            var reply = await node.Link.ArtifactsAsync(request, either.Token);
            if (request.ImageRepositories.Count == 0)
                reply.ImageError = "the node has no engine of containers now";
            return reply;
        }
#pragma warning disable CA1031 // whatever the link throws means the same: the node does not answer
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            LogSilent(node.Id, e.Message);
            return null;
        }
    }

    [LoggerMessage(3061, LogLevel.Warning, "Node {NodeId} could not be asked for its backends: {Reason}")]
    private partial void LogSilent(int nodeId, string reason);
}
