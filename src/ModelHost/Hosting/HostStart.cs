namespace ModelHost.Hosting;

/// <summary>Waiting for the host to start.</summary>
internal static class HostStart
{
    /// <summary>Waits until the host has started; false: it ends before, which may be because it cannot listen.</summary>
    public static async Task<bool> StartedAsync(this IHostApplicationLifetime lifetime, TimeProvider time, CancellationToken stoppingToken)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(lifetime.ApplicationStarted, stoppingToken);
        await Task.Delay(Timeout.InfiniteTimeSpan, time, either.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        return !stoppingToken.IsCancellationRequested;
    }
}
