namespace ModelHost.Agent.Downloads;

/// <summary>A body that is given up when its next 16 KiB take too long: waiting for each read alone would let a server trickle for ever.</summary>
internal sealed class StallGuard(Stream body, string from, TimeSpan timeout, TimeProvider time) : StreamOver(body)
{
    private const int PieceBytes = 16 * 1024;
    private long _pieceBegan = time.GetTimestamp();
    private int _pieceBytes;

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        // what the reader did meanwhile, such as writing to a slow disk, is not the server's time
        if (_pieceBytes == 0)
            _pieceBegan = time.GetTimestamp();
        var left = timeout - time.GetElapsedTime(_pieceBegan);
        if (left <= TimeSpan.Zero)
            throw Stalled(null);
        using var stall = new CancellationTokenSource(left, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(stall.Token, cancellationToken);
        try
        {
            var read = await Inner.ReadAsync(buffer, either.Token);
            _pieceBytes += read;
            if (_pieceBytes >= PieceBytes)
                _pieceBytes = 0;
            return read;
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw Stalled(e);
        }
        catch (Exception e) when (e is IOException or HttpRequestException)
        {
            throw new DownloadException("unreachable", $"the connection to {from} broke: {e.Message}", isPassing: true, e);
        }
    }

    private DownloadException Stalled(Exception? inner) =>
        new("timed_out", $"{from} sent less than {PieceBytes / 1024} KiB in {timeout.TotalSeconds:0.#} s", isPassing: true, inner);
}
