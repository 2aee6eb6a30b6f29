using System.Collections.Concurrent;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;

namespace ModelHost.Features.Deployments;

/// <summary>Why a deployment is not started for a request.</summary>
/// <param name="Code">Name of the cause.</param>
/// <param name="RetryAfter">When it may be started again at the earliest.</param>
internal readonly record struct StartRefusal(string Code, TimeSpan RetryAfter);

/// <summary>
/// Starts deployments for requests: one start at a time for each, however many ask, and after one that came to nothing none before a pause, which doubles
/// with each further one as that between runs does (<see cref="LifecycleOptions.RelaunchDelay"/>).
/// </summary>
internal sealed partial class OnDemandStarts(
    DeploymentStarts starts, IOptions<LifecycleOptions> options, IHostApplicationLifetime lifetime, TimeProvider time, ILogger<OnDemandStarts> logger)
{
    private static readonly TimeSpan ShortestPause = TimeSpan.FromSeconds(1);
    private readonly ConcurrentDictionary<string, Attempts> _attempts = new();

    /// <summary>Starts the first that can be started of some that rest.</summary>
    /// <returns>The one that starts now; else why none does.</returns>
    public async Task<(ModelRoute? Started, StartRefusal Refusal)> StartOneAsync(IReadOnlyList<ModelRoute> resting)
    {
        StartRefusal? refusal = null;
        foreach (var route in resting)
        {
            if (await StartAsync(route) is not { } refused)
                return (route, default);
            if (refusal is null || refused.RetryAfter < refusal.Value.RetryAfter)
                refusal = refused;
        }
        return (null, refusal ?? new StartRefusal("deployment.not_found", ShortestPause));
    }

    /// <summary>Says why a deployment that was started for a request rests again, and how long it will.</summary>
    public StartRefusal Ended(ModelRoute route)
    {
        var attempts = _attempts.GetOrAdd(route.DeploymentUid, static _ => new Attempts());
        lock (attempts)
        {
            Note(attempts, route);
            return attempts.Refusal(time.GetUtcNow()) ?? new StartRefusal("deployment.stopped", ShortestPause);
        }
    }

    /// <summary>It serves, or is gone: what failed before counts no more.</summary>
    public void Forget(string deploymentUid) => _attempts.TryRemove(deploymentUid, out _);

    private Task<StartRefusal?> StartAsync(ModelRoute route)
    {
        var attempts = _attempts.GetOrAdd(route.DeploymentUid, static _ => new Attempts());
        lock (attempts)
        {
            if (attempts.UnderWay is { IsCompleted: false } underWay)
                return underWay;
            Note(attempts, route);
            if (attempts.Refusal(time.GetUtcNow()) is { } refusal)
                return Task.FromResult<StartRefusal?>(refusal);
            // whoever asked for it may leave: it is started all the same
            return attempts.UnderWay = Task.Run(() => StartAsync(route, attempts));
        }
    }

    private async Task<StartRefusal?> StartAsync(ModelRoute route, Attempts attempts)
    {
        Failure? failure;
        try
        {
            LogStarting(route.DeploymentId);
            failure = (await starts.StartOnDemandAsync(route.DeploymentId, lifetime.ApplicationStopping)).Failure;
        }
#pragma warning disable CA1031 // a full disk must not be asked again by each request
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogBroken(e, route.DeploymentId);
            failure = new Failure(FailureKind.Unavailable, "internal_error", "");
        }
        // somebody else has just started it: the table will tell
        if (failure is null || failure.Code == DeploymentFailures.WrongStatusCode)
            return null;
        LogRefused(route.DeploymentId, failure.Code, failure.Detail);
        if (failure.Kind == FailureKind.NotFound)
            Forget(route.DeploymentUid); // deleted: there is nothing to remember
        lock (attempts)
        {
            Fail(attempts, failure.Code, time.GetUtcNow());
            return attempts.Refusal(time.GetUtcNow());
        }
    }

    /// <summary>Counts an end of a deployment, once: in an error as one more failure, else as a new beginning.</summary>
    private void Note(Attempts attempts, ModelRoute route)
    {
        if (attempts.RestsSince == route.StatusSince)
            return;
        attempts.RestsSince = route.StatusSince;
        if (route.Status == DeploymentStatus.Error)
            Fail(attempts, "deployment.failed", route.StatusSince);
        else
            (attempts.Failures, attempts.NotBefore) = (0, default);
    }

    private void Fail(Attempts attempts, string code, DateTimeOffset at)
    {
        var (first, longest) = (options.Value.RelaunchDelay, options.Value.MaxRelaunchDelay);
        var pause = first * Math.Pow(2, Math.Min(attempts.Failures++, 30));
        (attempts.Code, attempts.NotBefore) = (code, at + (pause < longest ? pause : longest));
    }

    private sealed class Attempts
    {
        public Task<StartRefusal?>? UnderWay { get; set; }
        public DateTimeOffset? RestsSince { get; set; }
        public int Failures { get; set; }
        public DateTimeOffset NotBefore { get; set; }
        public string Code { get; set; } = "";

        public StartRefusal? Refusal(DateTimeOffset now) =>
            now >= NotBefore ? null : new StartRefusal(Code, NotBefore - now > ShortestPause ? NotBefore - now : ShortestPause);
    }

    [LoggerMessage(1009, LogLevel.Information, "Deployment {DeploymentId} is started by a request for its model.")]
    private partial void LogStarting(int deploymentId);

    [LoggerMessage(1010, LogLevel.Warning, "Deployment {DeploymentId} could not be started for a request ({Code}): {Reason}")]
    private partial void LogRefused(int deploymentId, string code, string reason);

    [LoggerMessage(1011, LogLevel.Error, "The start of deployment {DeploymentId} for a request broke off.")]
    private partial void LogBroken(Exception exception, int deploymentId);
}
