using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Features.Deployments;

namespace ModelHost.Features.Monitor;

/// <summary>Stops what serves a model, when its calls have ended.</summary>
internal sealed class BackendShutdown(
    DeploymentReads reads, DeploymentService deployments, BackendMonitor monitor, IOptions<MonitorOptions> options, TimeProvider time)
{
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(100);

    /// <summary>Stops all deployments of a name, and waits for their end.</summary>
    /// <param name="model">A served name or a model's; not an adapter's, whose model others use too.</param>
    /// <param name="force">Whether calls under way are cut off.</param>
    /// <param name="cancellationToken">Gives up waiting; before the stop that leaves everything as it is.</param>
    public async Task<Failure?> StopAsync(string model, bool force, CancellationToken cancellationToken)
    {
        var found = ServingDeployment.Named(await reads.ServingAsync(cancellationToken), model)
            .Where(deployment => deployment.IsOwnName(model) && deployment.Status != DeploymentStatus.Error).ToArray();
        if (found.Length == 0)
            return new Failure(FailureKind.NotFound, "backend.not_loaded", $"model {model} not found");
        if (!force && !await UntilAsync(() => Task.FromResult(!found.Any(monitor.IsBusy)), options.Value.ShutdownGrace, cancellationToken))
            return new Failure(FailureKind.Conflict, "backend.busy", $"model is still busy: {model}");
        foreach (var deployment in found)
        {
            if ((await deployments.StopAsync(deployment.Id, cancellationToken)).Failure is { } failure && failure.Kind != FailureKind.NotFound)
                return failure;
        }
        // by their runs: a request may start one again as soon as it has ended
        var runs = found.Select(deployment => deployment.RunId).ToHashSet();
        return await UntilAsync(async () => !(await reads.ServingAsync(cancellationToken)).Any(one => runs.Contains(one.RunId)), options.Value.ShutdownTimeout, cancellationToken) ? null
            : new Failure(FailureKind.Unavailable, "backend.stopping", $"model {model} has been told to stop, and its end is not known yet");
    }

    private async Task<bool> UntilAsync(Func<Task<bool>> isSo, TimeSpan limit, CancellationToken cancellationToken)
    {
        var began = time.GetTimestamp();
        while (!await isSo())
        {
            if (time.GetElapsedTime(began) >= limit)
                return false;
            await Task.Delay(Poll, time, cancellationToken);
        }
        return true;
    }
}
