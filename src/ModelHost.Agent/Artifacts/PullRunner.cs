using System.Security.Cryptography;
using System.Text;
using ModelHost.Agent.Downloads;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>Does a pull of files: downloads what there is to download, puts it together, and puts it in its place.</summary>
internal sealed class PullRunner(ArtifactFolders folders, SourceResolver resolver, FileDownload download, TreeBuilder builder, DownloadOptions options, TimeProvider time)
{
    /// <summary>What it has installed already: the node went down between the last two steps.</summary>
    public Artifact? Installed(PullRequest request) => Of(request, folders.Installed(request.Kind, request.Name));

    /// <summary>What <see cref="StageAsync"/> has put together for it.</summary>
    public Artifact? Staged(PullRequest request) => Of(request, folders.Staged(request.Kind, request.Name));

    /// <summary>Puts that in its place.</summary>
    /// <exception cref="DownloadException">What is there under the name is not for a pull to replace.</exception>
    public void Install(PullRequest request) => folders.Install(request.Kind, request.Name);

    /// <summary>Does all of it but the last step.</summary>
    /// <returns>What is to be installed, whole and on the disk.</returns>
    /// <exception cref="DownloadException">It cannot be done. What is there under the name is as it was.</exception>
    public async Task<Artifact> StageAsync(PullRequest request, string? token, PullProgress progress, CancellationToken cancellationToken)
    {
        var parts = Path.Combine(folders.StagingOf(request.Kind, request.Name), "parts");
        Directory.CreateDirectory(parts);
        progress.Enter(PullPhase.Resolving);
        var fetched = new Fetched[request.Files.Count];
        var left = request.Files.Count;
        var slots = new ParallelOptions { MaxDegreeOfParallelism = options.ParallelFiles, CancellationToken = cancellationToken };
        using var downloads = new SemaphoreSlim(options.ParallelFiles);
        await Parallel.ForEachAsync(Enumerable.Range(0, request.Files.Count), slots, async (i, token2) =>
        {
            fetched[i] = await FetchAsync(request, i, token, parts, progress, downloads, () => Interlocked.Decrement(ref left) == 0, token2);
        });
        progress.Enter(PullPhase.Unpacking);
        var tree = await builder.BuildAsync(request, fetched, progress, cancellationToken);
        progress.Enter(PullPhase.Installing);
        var artifact = Describe(request, fetched, tree);
        ArtifactFolders.WriteRecord(tree.Path, artifact);
        folders.Ready(request.Kind, request.Name);
        return artifact;
    }

    private static Artifact? Of(PullRequest request, Artifact? found) => found?.PullId == request.PullId ? found : null;

    private async Task<Fetched> FetchAsync(
        PullRequest request, int index, string? token, string parts, PullProgress progress, SemaphoreSlim downloads, Func<bool> isLast, CancellationToken cancellationToken)
    {
        var file = request.Files[index];
        var resolved = false;
        DownloadException? failure = null;
        foreach (var uri in file.Mirrors.Prepend(file.Uri))
        {
            var keys = new List<string>();
            try
            {
                var source = await resolver.ResolveAsync(
                    uri, file.Sha256.ToLowerInvariant(), token, request.Kind == ArtifactKind.Model && !request.AllowPickle, cancellationToken);
                var items = source.Parts;
                var reports = items.Select((item, i) =>
                {
                    keys.Add($"{index}/{i}");
                    return progress.Of(keys[i], item.Path, item.SizeBytes);
                }).ToArray();
                if (!resolved && isLast())
                    progress.Resolved();
                resolved = true;
                if (progress.Phase == PullPhase.Resolving && items.Count > 0)
                    progress.Enter(PullPhase.Downloading);
                var got = new DownloadedFile[items.Count];
                await Parallel.ForEachAsync(Enumerable.Range(0, items.Count), new ParallelOptions { CancellationToken = cancellationToken, MaxDegreeOfParallelism = options.ParallelFiles }, async (i, stop) =>
                {
                    await downloads.WaitAsync(stop);
                    try
                    {
                        var part = Path.Combine(parts, Key(items[i], items.Count > 1 ? $"{file.Path}/{i}" : file.Path));
                        got[i] = await ReuseAsync(request, items[i], part, stop) ?? await download.GetAsync(items[i], part, reports[i], stop);
                        progress.Whole(keys[i], got[i].SizeBytes);
                    }
                    finally
                    {
                        downloads.Release();
                    }
                });
                return new Fetched(uri, source, got);
            }
            // another address would not find more room either
            catch (DownloadException e) when (e.Code != "disk_full")
            {
                failure ??= e;
                keys.ForEach(progress.Drop);
            }
        }
        throw failure!;
    }

    // an upgrade often changes one file of many
    private async Task<DownloadedFile?> ReuseAsync(PullRequest request, RemoteFile file, string part, CancellationToken cancellationToken) =>
        file.Sha256.Length > 0 && folders.Installed(request.Kind, request.Name)?.Files.FirstOrDefault(there => there.Sha256 == file.Sha256) is { } known
            ? await FileDownload.ReuseAsync(file, Path.Combine(folders.Of(request.Kind, request.Name), known.Path), part, cancellationToken) : null;

    // by its place in the pull: two files of it, or layers, may be the same and are downloaded at the same time
    private static string Key(RemoteFile file, string target) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes($"{file.Identity}\n{target}")))[..40];

    private Artifact Describe(PullRequest request, Fetched[] fetched, BuiltTree tree)
    {
        var artifact = new Artifact
        {
            Kind = request.Kind,
            Name = request.Name,
            Version = request.Version,
            Digest = Digest(fetched, tree),
            SizeBytes = tree.SizeBytes,
            InstalledAt = time.GetUtcNow().ToUnixTimeMilliseconds() / 1000d,
            PullId = request.PullId,
        };
        artifact.Files.AddRange(tree.Files);
        artifact.Uris.AddRange(fetched.Select(f => GuardedHttp.Display(f.Uri)));
        artifact.Metadata = BackendMetadata.Write(request, artifact, tree.Path);
        return artifact;
    }

    private static string Digest(Fetched[] fetched, BuiltTree tree)
    {
        if (fetched is [{ Source: Source.Image image }])
            return image.Digest;
        if (tree.Files is [var single])
            return "sha256:" + single.Sha256;
        var lines = tree.Files.Select(file => $"{file.Sha256}  {file.Path}\n").Concat(fetched.Select(f => f.Source).OfType<Source.Image>().Select(other => $"{other.Digest}\n"));
        return "sha256:" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(string.Concat(lines.Order(StringComparer.Ordinal)))));
    }
}

/// <summary>What one of the files of a pull came to.</summary>
/// <param name="Uri">The address that it came from in the end.</param>
/// <param name="Source">What that stands for.</param>
/// <param name="Files">What was downloaded, in the source's order.</param>
internal sealed record Fetched(string Uri, Source Source, IReadOnlyList<DownloadedFile> Files);
