using ModelHost.Protocol;

namespace ModelHost.Agent;

/// <summary>Reads the room on the disk every ten seconds, and walks the model cache every five minutes.</summary>
internal sealed class DiskSampler(string dataFolder, string cacheFolder, TimeProvider time)
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(10);
    private const int WalkEvery = 30;

    /// <summary>The last figures.</summary>
    public Disk Current { get; private set; } = new();

    /// <summary>Reads until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        await Task.Yield();
        long cache = 0;
        for (var pass = 0; !cancellationToken.IsCancellationRequested; pass++)
        {
            if (pass % WalkEvery == 0)
                cache = Size(cacheFolder, cancellationToken);
            var drive = new DriveInfo(Directory.Exists(cacheFolder) ? cacheFolder : dataFolder);
            Current = new Disk { TotalBytes = drive.TotalSize, FreeBytes = drive.AvailableFreeSpace, HfCacheBytes = cache };
            await Task.Delay(Period, time, cancellationToken);
        }
    }

    private static long Size(string folder, CancellationToken cancellationToken)
    {
        if (!Directory.Exists(folder))
            return 0;
        // snapshots are links to blobs, which would count twice
        var options = new EnumerationOptions { RecurseSubdirectories = true, IgnoreInaccessible = true, AttributesToSkip = FileAttributes.ReparsePoint };
        long sum = 0;
        foreach (var file in new DirectoryInfo(folder).EnumerateFiles("*", options))
        {
            cancellationToken.ThrowIfCancellationRequested();
            sum += file.Exists ? file.Length : 0;
        }
        return sum;
    }
}
