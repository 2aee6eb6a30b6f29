using ModelHost.Data;

namespace ModelHost.Features.Usage;

/// <summary>
/// Stores what was used by way of the gateway, and is the only one who writes that: once a second, in one transaction, and a last time after the last request has been
/// answered. A crash loses what was used in its last second or two, whatever the load.
/// </summary>
internal sealed partial class UsageWriter(UsageBook book, Database database, TimeProvider time, ILogger<UsageWriter> logger) : BackgroundService, IHostedLifecycleService
{
    private static readonly TimeSpan Period = TimeSpan.FromSeconds(1);
    private readonly SemaphoreSlim _one = new(1);

    /// <summary>Stores what was used up to this call.</summary>
    public async Task FlushAsync(CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            var entries = book.Take();
            if (entries.Count == 0)
                return;
            try
            {
                await StoreAsync(entries, cancellationToken);
            }
            catch
            {
                book.PutBack(entries);
                throw;
            }
        }
        finally
        {
            _one.Release();
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, time);
        var failures = 0;
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await timer.WaitForNextTickAsync(stoppingToken);
                await FlushAsync(stoppingToken);
                failures = 0;
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                break;
            }
#pragma warning disable CA1031 // a database that fails now is asked again, and what was used is kept until then
            catch (Exception e)
#pragma warning restore CA1031
            {
                LogFailed(e, ++failures);
            }
            timer.Period = Period * (1 << Math.Min(failures, 5));
        }
    }

    /// <summary>The last requests are answered when all that is hosted has stopped, the listener included.</summary>
    public Task StoppedAsync(CancellationToken cancellationToken) => FlushAsync(CancellationToken.None); // however long the stop took before

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override void Dispose()
    {
        _one.Dispose();
        base.Dispose();
    }

    private async Task StoreAsync(IReadOnlyList<UsageEntry> entries, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        await using var transaction = await database.BeginAsync(db, cancellationToken);
        await UsageRows.AddAsync(db, entries, cancellationToken);
        // not given up: whether it has been stored would not be known, and it would be stored twice
        await transaction.CommitAsync(CancellationToken.None);
    }

    [LoggerMessage(1801, LogLevel.Error, "What was used could not be stored ({Failures} in a row); it is kept in memory and tried again.")]
    private partial void LogFailed(Exception exception, int failures);
}
