using Microsoft.Extensions.Options;

namespace ModelHost.Gateway;

/// <summary>
/// Counts the requests under way, and lets a shutdown wait for them before the listener closes: up to <see cref="GatewayOptions.DrainTimeout"/>.
/// </summary>
internal sealed partial class GatewayDrain(
    IHostApplicationLifetime lifetime, IOptions<GatewayOptions> options, TimeProvider time, ILogger<GatewayDrain> logger) : IHostedLifecycleService, IDisposable
{
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(50);
    // from the end of their connections to that of what is counted of them
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(5);
    private int _underWay;
    private readonly CancellationTokenSource _over = new();
    private readonly CancellationTokenSource _stopping = new();
    private volatile bool _isStopping;

    /// <summary>Whether new requests are refused because the process ends.</summary>
    public bool IsDraining => _isStopping || lifetime.ApplicationStopping.IsCancellationRequested;

    /// <summary>The time of those under way is over: their connections are cut, or the listener would wait for them.</summary>
    public CancellationToken Over => _over.Token;

    /// <summary>The process ends: what has not begun to be served is given up.</summary>
    public CancellationToken Stopping => _stopping.Token;

    /// <summary>A request begins.</summary>
    public void Begin() => Interlocked.Increment(ref _underWay);

    /// <summary>A request has been answered, or given up.</summary>
    public void End() => Interlocked.Decrement(ref _underWay);

    public async Task StoppingAsync(CancellationToken cancellationToken)
    {
        _isStopping = true;
        await _stopping.CancelAsync();
        if (Volatile.Read(ref _underWay) is > 0 and var count)
            LogWaiting(count, options.Value.DrainTimeout);
        await NoneAsync(options.Value.DrainTimeout, cancellationToken);
        if (Volatile.Read(ref _underWay) is > 0 and var left)
            LogGivenUp(left);
        await _over.CancelAsync();
    }

    /// <summary>The listener has closed, and cut off what was left; what those used is counted before it is stored for the last time.</summary>
    public Task StopAsync(CancellationToken cancellationToken) => NoneAsync(Settling, cancellationToken);

    private async Task NoneAsync(TimeSpan atMost, CancellationToken cancellationToken)
    {
        var began = time.GetTimestamp();
        while (Volatile.Read(ref _underWay) > 0 && time.GetElapsedTime(began) < atMost && !cancellationToken.IsCancellationRequested)
            await Task.Delay(Poll, time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public void Dispose()
    {
        _over.Dispose();
        _stopping.Dispose();
    }

    [LoggerMessage(1303, LogLevel.Information, "Waiting for {Count} requests under way, up to {DrainTimeout}.")]
    private partial void LogWaiting(int count, TimeSpan drainTimeout);

    [LoggerMessage(1304, LogLevel.Warning, "{Count} requests were still under way when the time for them was over.")]
    private partial void LogGivenUp(int count);
}
