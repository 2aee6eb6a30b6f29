using ModelHost.Agent.Downloads;
using ModelHost.Core.Artifacts;
using ModelHost.Core.Galleries;
using ModelHost.Features.Galleries;
using ModelHost.Features.Releases;
using Options = Microsoft.Extensions.Options;

namespace ModelHost.Features.Backends;

/// <summary>
/// Looks for backends that are not what they could be: soon after the start, every few hours, when one was installed or deleted, and when it is asked to. What it
/// found last is kept.
/// </summary>
internal sealed partial class BackendUpgrades(
    BackendShelves shelves, BackendInventory inventory, RegistryDigests digests, ReleaseService releases, Options.IOptions<GalleryOptions> options, TimeProvider time,
    ILogger<BackendUpgrades> logger) : BackgroundService
{
    private const int ParallelQuestions = 4;
    private static readonly TimeSpan FirstDelay = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(15);

    private readonly SemaphoreSlim _one = new(1);
    private readonly SemaphoreSlim _poke = new(0, 1);
    private volatile IReadOnlyDictionary<string, UpgradeRead> _found = new Dictionary<string, UpgradeRead>();

    /// <summary>What was found last, by backend.</summary>
    public IReadOnlyDictionary<string, UpgradeRead> Found => _found;

    /// <summary>Has it look soon.</summary>
    public void Poke()
    {
        try
        {
            _poke.Release();
        }
        catch (SemaphoreFullException)
        {
            // it is about to
        }
    }

    /// <summary>Looks now.</summary>
    public async Task CheckAsync(CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            var shelf = await shelves.ReadAsync(null, cancellationToken);
            var all = await inventory.ListAsync(cancellationToken);
            var groups = all.Where(here => !here.IsMeta && here.Form != BackendForm.Recipe && !(here.IsSystem && here.Form == BackendForm.Folder))
                .GroupBy(here => here.Name).Where(group => !IsReplaced(group.Key, all)).ToArray();
            var newest = await releases.LatestAsync(cancellationToken);
            using var slots = new SemaphoreSlim(ParallelQuestions);
            var found = await Task.WhenAll(groups.Select(async group =>
            {
                await slots.WaitAsync(cancellationToken);
                try
                {
                    var installed = group.ToArray();
                    return UpgradeRules.Find(group.Key, installed, await OfferAsync(shelf, installed, newest, cancellationToken));
                }
                finally
                {
                    slots.Release();
                }
            }));
            _found = found.OfType<UpgradeRead>().OrderBy(one => one.BackendName, StringComparer.Ordinal).ToDictionary(one => one.BackendName);
            if (_found.Count > 0)
                LogFound(string.Join(", ", _found.Keys));
        }
        finally
        {
            _one.Release();
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var delay = FirstDelay;
        while (!stoppingToken.IsCancellationRequested)
        {
            await ((Task)_poke.WaitAsync(delay, stoppingToken)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            delay = options.Value.UpgradePeriod;
            try
            {
                stoppingToken.ThrowIfCancellationRequested();
                await CheckAsync(stoppingToken);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                break;
            }
#pragma warning disable CA1031 // what was found before holds until the next time
            catch (Exception e)
#pragma warning restore CA1031
            {
                LogFailed(e);
            }
        }
    }

    public override void Dispose()
    {
        base.Dispose();
        _one.Dispose();
        _poke.Dispose();
    }

    // a build of every night takes the place of the one it is named after
    private static bool IsReplaced(string name, IReadOnlyList<BackendHere> all) => all.Any(here => here.Name == $"{name}-development");

    private async Task<BackendOffer?> OfferAsync(BackendShelf shelf, BackendHere[] installed, string newest, CancellationToken cancellationToken)
    {
        var one = installed[0];
        // wherever a node takes them from, the releases are the same
        var isReleased = one.Form == BackendForm.BuiltIn || (one.Form != BackendForm.Folder && BackendPlan.IsReleased(ImageName.Repository(one.Uri)));
        // what came from an address, and has the name of another by chance, is looked for at its own
        var entry = one.Gallery.Length > 0 && shelf.Find($"{one.Gallery}@{one.Name}").TryGet(out var found, out _) ? found.Entry : null;
        if (entry is { Version.Length: > 0 })
            return new BackendOffer(entry.Version, null);
        if (isReleased)
            return new BackendOffer(newest, null, IsRelease: true);
        return entry is null && one.Gallery.Length > 0 ? null : new BackendOffer("", await DigestAsync(one, entry, cancellationToken));
    }

    private async Task<string?> DigestAsync(BackendHere one, GalleryEntry? entry, CancellationToken cancellationToken)
    {
        var uri = entry is { Uri.Length: > 0 } ? entry.Uri : one.Uri;
        var parsed = ArtifactUri.Parse(one.Form == BackendForm.Image && ImageName.Of(uri) is { } name ? $"oci://{name}" : uri);
        if (!parsed.TryGet(out var address, out _) || address is not ArtifactUri.Image image)
            return null;
        using var patience = new CancellationTokenSource(Patience, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(patience.Token, cancellationToken);
        try
        {
            return await digests.FindAsync(image, either.Token);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested && e is DownloadException or OperationCanceledException)
        {
            LogUnknown(one.Name, e.Message);
            return null;
        }
    }

    [LoggerMessage(3051, LogLevel.Information, "Newer, or not the same on all nodes: {Backends}")]
    private partial void LogFound(string backends);

    [LoggerMessage(3052, LogLevel.Warning, "Whether there is a newer {Backend} is not known: {Reason}")]
    private partial void LogUnknown(string backend, string reason);

    [LoggerMessage(3053, LogLevel.Warning, "Upgrades of backends could not be looked for; it is tried again.")]
    private partial void LogFailed(Exception exception);
}
