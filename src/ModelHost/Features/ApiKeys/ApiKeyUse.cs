namespace ModelHost.Features.ApiKeys;

/// <summary>Writes once a minute, and at the end, when keys were used; and deletes temporary keys that have ended.</summary>
internal sealed partial class ApiKeyUse(ApiKeyService keys, TimeProvider time, ILogger<ApiKeyUse> logger) : BackgroundService
{
    private static readonly TimeSpan Period = TimeSpan.FromMinutes(1);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, time);
        try
        {
            while (await timer.WaitForNextTickAsync(stoppingToken))
                await SweepAsync(stoppingToken);
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // the end
        }
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        // the listener has stopped before: nothing is used any more
        await SweepAsync(cancellationToken);
    }

    private async Task SweepAsync(CancellationToken cancellationToken)
    {
        try
        {
            await keys.SweepAsync(cancellationToken);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
        {
            LogFailed(e);
        }
    }

    [LoggerMessage(1706, LogLevel.Warning, "When API keys were used could not be written; it is tried again in a minute.")]
    private partial void LogFailed(Exception exception);
}
