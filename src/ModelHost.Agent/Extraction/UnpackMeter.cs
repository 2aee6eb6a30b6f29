using ModelHost.Agent.Downloads;

namespace ModelHost.Agent.Extraction;

/// <summary>What may be unpacked at most.</summary>
/// <param name="MaxBytes">Bytes of all of it.</param>
/// <param name="MaxEntries">Files, folders and links.</param>
internal sealed record UnpackLimits(long MaxBytes, int MaxEntries)
{
    /// <summary>How many times as large as the archive its content may be: weights do not shrink, programs shrink to a fifth, and text rarely below a tenth.</summary>
    public int MaxRatio { get; init; } = 200;

    /// <summary>Bytes up to which the ratio does not count: small files of zeros are no attack.</summary>
    public long RatioFreeBytes { get; init; } = 64L << 20;
}

/// <summary>Counts what comes out of archives and ends it where it gets out of hand.</summary>
internal sealed class UnpackMeter(UnpackLimits limits, DiskRoom room, CancellationToken cancellationToken)
{
    private long _bytes, _looked, _archiveBytes;
    private int _entries;

    /// <summary>Begins with another archive.</summary>
    public void Begin(long archiveBytes) => _archiveBytes += archiveBytes;

    /// <summary>Another file, folder or link.</summary>
    public void Entry()
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (++_entries > limits.MaxEntries)
            throw new DownloadException("too_large", $"the archive has more than {limits.MaxEntries} files and folders (Downloads:MaxArchiveEntries)");
    }

    /// <summary>More bytes of content.</summary>
    public void Add(long bytes)
    {
        cancellationToken.ThrowIfCancellationRequested();
        _bytes += bytes;
        if (_bytes > limits.MaxBytes)
            throw new DownloadException("too_large", $"the archive unpacks to more than {limits.MaxBytes} bytes (Downloads:MaxFileBytes)");
        if (_bytes > limits.RatioFreeBytes && _bytes / limits.MaxRatio > _archiveBytes)
            throw new DownloadException("too_large", $"the archive unpacks to more than {limits.MaxRatio} times its size");
        if (_bytes - _looked < DiskRoom.StepBytes)
            return;
        room.Require(0);
        _looked = _bytes;
    }
}
