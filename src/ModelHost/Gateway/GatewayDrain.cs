using Microsoft.Extensions.Options;

namespace ModelHost.Gateway;

/// <summary>
/// Counts the requests under way, and lets a shutdown wait for them before the listener closes: up to <see cref="GatewayOptions.DrainTimeout"/>.
/// </summary>
internal sealed partial class GatewayDrain(
    IHostApplicationLifetime lifetime, IOptions<GatewayOptions> options, TimeProvider time, ILogger<GatewayDrain> logger) : IHostedLifecycleService
{
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(50);
    private int _underWay;

    /// <summary>Whether new requests are refused because the process ends.</summary>
    public bool IsDraining => lifetime.ApplicationStopping.IsCancellationRequested;

    /// <summary>A request begins.</summary>
    public void Begin() => Interlocked.Increment(ref _underWay);

    /// <summary>A request has been answered, or given up.</summary>
    public void End() => Interlocked.Decrement(ref _underWay);

    public async Task StoppingAsync(CancellationToken cancellationToken)
    {
        var began = time.GetTimestamp();
        if (Volatile.Read(ref _underWay) is > 0 and var count)
            LogWaiting(count, options.Value.DrainTimeout);
        while (Volatile.Read(ref _underWay) > 0 && time.GetElapsedTime(began) < options.Value.DrainTimeout
            && !cancellationToken.IsCancellationRequested)
        {
            await Task.Delay(Poll, time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        if (Volatile.Read(ref _underWay) is > 0 and var left)
            LogGivenUp(left);
    }

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    [LoggerMessage(1303, LogLevel.Information, "Waiting for {Count} requests under way, up to {DrainTimeout}.")]
    private partial void LogWaiting(int count, TimeSpan drainTimeout);

    [LoggerMessage(1304, LogLevel.Warning, "{Count} requests were still under way when the time for them was over.")]
    private partial void LogGivenUp(int count);
}
