using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Features.Settings;

namespace ModelHost.Features.Deployments;

/// <summary>Waits until a launch has come to something. Whoever waits changes nothing: leaving cancels nothing.</summary>
internal sealed class DeploymentWaits(DeploymentReads reads, LiveSettings settings, IHostApplicationLifetime lifetime, TimeProvider time)
{
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(100);

    /// <summary>How long at most; then the deployment is answered as it stands. Default: as long as a start may take.</summary>
    public TimeSpan Limit { get => field > TimeSpan.Zero ? field : TimeSpan.FromSeconds(settings.Current.StartTimeoutSeconds); set; }

    /// <summary>Waits while a deployment is on its way to running.</summary>
    /// <returns>The deployment as it stands then.</returns>
    public async Task<Result<DeploymentRead>> SettledAsync(int id, CancellationToken cancellationToken)
    {
        using var limit = new CancellationTokenSource(Limit, time);
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, lifetime.ApplicationStopping, cancellationToken);
        while (true)
        {
            var read = await reads.FindAsync(id, cancellationToken);
            if (waiting.IsCancellationRequested || !read.Match(found => IsOnItsWay(found.Status), _ => false))
                return read;
            await Task.Delay(Poll, time, waiting.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    private static bool IsOnItsWay(string status) =>
        DeploymentStatuses.FromWire(status) is DeploymentStatus.Starting or DeploymentStatus.Loading or DeploymentStatus.Unreachable;
}
