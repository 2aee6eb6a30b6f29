namespace ModelHost.Agent.Downloads;

/// <summary>Sees to it that what is downloaded and unpacked leaves some of the disk free.</summary>
internal sealed class DiskRoom(string folder, long reservedBytes)
{
    /// <summary>How much may be written between two looks.</summary>
    public const long StepBytes = 64L << 20;

    private const int NoSpace = 28, OverQuota = 122;

    /// <summary>Bytes that may still be written.</summary>
    public long Left => Math.Max(0, new DriveInfo(folder).AvailableFreeSpace - reservedBytes);

    /// <summary>Refuses what there is no room for.</summary>
    /// <exception cref="DownloadException"><c>disk_full</c>.</exception>
    public void Require(long bytes)
    {
        if (Left is var left && left < bytes)
            throw Full($"{bytes} bytes are wanted and {left} are left, besides the {reservedBytes} that stay free (Downloads:ReservedDiskBytes)");
    }

    /// <summary>Whether a failed write says that the disk, or the owner's share of it, is full.</summary>
    public static bool IsFull(IOException e) => e.HResult is NoSpace or OverQuota;

    /// <summary>The failure of a write to a full disk.</summary>
    public static DownloadException Full(string why) => new("disk_full", $"the disk is full: {why}");
}
