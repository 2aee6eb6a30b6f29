using Microsoft.Extensions.Logging;
using ModelHost.Protocol;

namespace ModelHost.Agent;

/// <summary>
/// Reads the room on the disk every ten seconds, and walks the model cache every five minutes. A walk may take minutes on a network disk, and
/// nothing waits for it.
/// </summary>
internal sealed partial class DiskSampler(string dataFolder, string cacheFolder, TimeProvider time, ILogger logger)
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan WalkPeriod = TimeSpan.FromMinutes(5);
    private volatile Disk _current = new();
    private bool _isFailing;

    /// <summary>The last figures.</summary>
    public Disk Current => _current;

    /// <summary>Reads until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        await Task.Yield();
        var walk = Task.FromResult<long?>(null);
        var walked = DateTimeOffset.MinValue;
        long? cache = null;
        while (!cancellationToken.IsCancellationRequested)
        {
            if (walk.IsCompleted)
            {
                cache = await walk ?? cache;
                if (time.GetUtcNow() - walked >= WalkPeriod)
                {
                    walked = time.GetUtcNow();
                    walk = Task.Run(() => Size(cacheFolder, cancellationToken), cancellationToken);
                    // most caches are small enough to be in the first figures
                    await Task.WhenAny(walk, Task.Delay(Period, time, cancellationToken));
                    continue;
                }
            }
            Read(cache);
            await Task.Delay(Period, time, cancellationToken);
        }
    }

    private void Read(long? cache)
    {
        try
        {
            var drive = new DriveInfo(Directory.Exists(cacheFolder) ? cacheFolder : dataFolder);
            var disk = new Disk { TotalBytes = drive.TotalSize, FreeBytes = drive.AvailableFreeSpace };
            if (cache is { } bytes)
                disk.HfCacheBytes = bytes;
            (_current, _isFailing) = (disk, false);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // a network disk that is away: old figures would look like new ones
            _current = new Disk();
            if (!_isFailing)
                LogUnread(cacheFolder, e.Message);
            _isFailing = true;
        }
    }

    /// <summary>Bytes of all files below a folder; null: it could not be walked.</summary>
    private static long? Size(string folder, CancellationToken cancellationToken)
    {
        if (!Directory.Exists(folder))
            return 0;
        // snapshots are links to blobs, which would count twice
        var options = new EnumerationOptions { RecurseSubdirectories = true, IgnoreInaccessible = true, AttributesToSkip = FileAttributes.ReparsePoint };
        long sum = 0;
        try
        {
            foreach (var file in new DirectoryInfo(folder).EnumerateFiles("*", options))
            {
                cancellationToken.ThrowIfCancellationRequested();
                sum += file.Exists ? file.Length : 0;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
        return sum;
    }

    [LoggerMessage(2205, LogLevel.Warning, "The disk of {Folder} cannot be read: {Reason}")]
    private partial void LogUnread(string folder, string reason);
}
