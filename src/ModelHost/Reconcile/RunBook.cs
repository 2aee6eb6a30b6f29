using Microsoft.EntityFrameworkCore;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Protocol;

namespace ModelHost.Reconcile;

/// <summary>Writes down what becomes of a deployment: its status, the cause of an end, and its runs.</summary>
internal static class RunBook
{
    /// <summary>Stores a step in the row, and gives the next run its id.</summary>
    /// <param name="row">The deployment.</param>
    /// <param name="step">The step.</param>
    /// <param name="engine">What the node says of the run that was observed; null: nothing that counts.</param>
    /// <param name="metrics">The counters that the node told last of that run; null: none.</param>
    /// <param name="policy">By which the step was made.</param>
    /// <param name="now">The time.</param>
    public static void Apply(Deployment row, DeploymentStep step, Engine? engine, EngineMetrics? metrics, LifecyclePolicy policy, DateTimeOffset now)
    {
        var (before, isNew) = (row.Status, row.BeginsAt is null);
        var state = step.State;
        (row.Wanted, row.Status, row.RunSeen, row.ExpiresAt) = (state.Wanted, state.Status, state.RunSeen, state.ExpiresAt);
        (row.BeginsAt, row.ReadyAt, row.FailedStarts, row.WarnedOf) = (state.BeginsAt, state.ReadyAt, state.FailedStarts, state.WarnedOf);
        if (row.Status != before)
            row.StatusChangedAt = now;
        if (!row.Status.IsActive())
            (row.ReservedPort, row.Conflict, row.NamesTaken) = (null, null, false);
        Explain(row, step, engine, policy, isNew);
        row.Detail = Detail(row, step, engine, now);
        if (engine is not null)
        {
            row.EngineVersion = engine.EngineVersion.Length > 0 ? engine.EngineVersion : row.EngineVersion;
            row.ImageDigest = engine.ImageDigest.Length > 0 ? engine.ImageDigest : row.ImageDigest;
        }
        if (metrics is not null)
            Count(row, metrics);
        if (!step.NewRun)
            return;
        row.RunId = Guid.NewGuid().ToString("N");
        (row.CountedPromptTokens, row.CountedCompletionTokens, row.CountedRequests) = (0, 0, 0);
    }

    /// <summary>Notes in the run that was observed what became of it; a first note makes room for it.</summary>
    public static async Task NoteAsync(
        ModelHostDbContext db, Deployment seen, Deployment row, DeploymentStep step, Engine? engine, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var run = await db.Runs.FirstOrDefaultAsync(r => r.Id == seen.RunId, cancellationToken);
        if (run is null)
        {
            if (engine is null && step.Action != NodeAction.Start && step.End == RunEnd.None)
                return; // nothing has come of it yet
            db.Runs.Add(run = Run.Of(seen, now));
            var old = db.Runs.Where(r => r.DeploymentId == seen.Id && r.Id != seen.RunId).OrderByDescending(r => r.StartedAt).Skip(Run.Kept - 1);
            db.Runs.RemoveRange(await old.ToListAsync(cancellationToken));
        }
        if (engine is not null)
            run.Observe(engine);
        if (step.End != RunEnd.None)
            run.End(now, step.End, row.ErrorCode, row.LastError);
    }

    private static void Explain(Deployment row, DeploymentStep step, Engine? engine, LifecyclePolicy policy, bool isNew)
    {
        var failure = step.End switch
        {
            RunEnd.Failed when engine is { Failure.Length: > 0 } => (engine.FailureCode, engine.Failure),
            RunEnd.Failed => ("engine_exited", "The engine ended."),
            RunEnd.Vanished => ("engine_vanished", "The engine is gone from its node, and nobody told ModelHost to end it."),
            RunEnd.TimedOut => ("start_timeout", TimedOut(engine, policy)),
            RunEnd.None or RunEnd.Stopped or RunEnd.Expired => default((string Code, string Text)?),
        };
        if (failure is { } cause)
        {
            var (code, text) = cause;
            (row.ErrorCode, row.LastError) = (code, step.GaveUpAfter > 0 ? $"Stopped after {step.GaveUpAfter} failed start{(step.GaveUpAfter == 1 ? "" : "s")}. {text}" : text);
        }
        // the cause of the last end is worth knowing until another run has made up for it
        else if (row.Status is DeploymentStatus.Running or DeploymentStatus.Stopped || (isNew && row.Status is DeploymentStatus.Starting or DeploymentStatus.Loading))
            (row.ErrorCode, row.LastError) = (row.Conflict is null ? null : "claims_held", row.Conflict);
    }

    private static string TimedOut(Engine? engine, LifecyclePolicy policy) =>
        $"The engine was not ready within {policy.StartTimeout.TotalSeconds:0} s (start_timeout_seconds) and was ended."
        + (engine is { Detail.Length: > 0 } ? $" It was at: {engine.Detail}." : "");

    private static string? Detail(Deployment row, DeploymentStep step, Engine? engine, DateTimeOffset now) => row.Status switch
    {
        DeploymentStatus.Starting when step.NewRun || row.BeginsAt > now => "waiting to start again",
        DeploymentStatus.Running when engine is { DirectError.Length: > 0 } => engine.DirectError,
        DeploymentStatus.Stopping when engine is { Phase: EnginePhase.Ready } => DeploymentDrains.Detail(row, now),
        DeploymentStatus.Starting or DeploymentStatus.Loading when engine is { Detail.Length: > 0 } => engine.Detail,
        _ => null,
    };

    /// <summary>Adds what the run's counters grew by since they were stored last; a counter that fell began anew.</summary>
    private static void Count(Deployment row, EngineMetrics metrics)
    {
        static long Grown(double now, double counted) => (long)(now >= counted ? now - counted : now);
        row.TotalPromptTokens += Grown(metrics.PromptTokens, row.CountedPromptTokens);
        row.TotalCompletionTokens += Grown(metrics.GenerationTokens, row.CountedCompletionTokens);
        row.TotalRequests += Grown(metrics.Requests, row.CountedRequests);
        (row.CountedPromptTokens, row.CountedCompletionTokens, row.CountedRequests) = (metrics.PromptTokens, metrics.GenerationTokens, metrics.Requests);
    }
}
