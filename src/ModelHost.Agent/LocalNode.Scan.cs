using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Logging;
using ModelHost.Agent.Engines;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;

namespace ModelHost.Agent;

// what is found on the machine, and goes on from the time before this process
public sealed partial class LocalNode
{
    private async Task ScanForeverAsync(IEngineRuntime runtime, Task first)
    {
        await first;
        while (!_shutdown.IsCancellationRequested)
        {
            await Task.Delay(ScanPeriod, _time, _shutdown.Token);
            await ScanAsync(runtime, _shutdown.Token);
        }
    }

    /// <summary>Asks a runtime for its engines, and takes over those that nobody watches.</summary>
    private async Task ScanAsync(IEngineRuntime runtime, CancellationToken cancellationToken)
    {
        using var deadline = new CancellationTokenSource(ScanDeadline, _time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
        try
        {
            HashSet<string> watched;
            lock (_lock)
                watched = [.. _engines.Keys];
            // what was watched before and is not afterwards has gone in between: it must not come back
            var instances = await runtime.ListAsync(watched, linked.Token);
            lock (_lock)
            {
                foreach (var instance in instances.Where(instance => !_engines.ContainsKey(instance.RunId)))
                {
                    if (IsOurs(instance, out var recipe) && IsAllowed(runtime, recipe))
                        Adopt(runtime, recipe, instance);
                }
                foreach (var record in _kept.Values.Where(record => record.Runtime == runtime.Name).ToArray())
                    TakeUp(runtime, record);
            }
            if (!_answering.GetValueOrDefault(runtime.Name))
                LogRuntimeAnswers(runtime.Name);
            SetAnswering(runtime, true);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
        }
#pragma warning disable CA1031 // the one catch-all of the loop: whatever it is, what runs on this runtime is not known now, and is asked again
        catch (Exception e)
#pragma warning restore CA1031
        {
            if (_answering.GetValueOrDefault(runtime.Name, true))
                LogRuntimeSilent(runtime.Name, deadline.IsCancellationRequested ? $"no answer within {ScanDeadline.TotalSeconds:0} s" : e.Message);
            SetAnswering(runtime, false);
        }
    }

    private static bool IsOurs(EngineInstance instance, [NotNullWhen(true)] out BackendRecipe? recipe)
    {
        recipe = BackendCatalogue.Of(LaunchSpec.FromJson(instance.SpecJson));
        // the ids name files; labels can be written by anybody who may start containers
        return recipe is not null && Guid.TryParse(instance.RunId, out _) && Guid.TryParse(instance.DeploymentUid, out _);
    }

    /// <summary>Whether this node has to do with engines of a recipe on a runtime: with processes only where they are allowed, or are installed backends.</summary>
    private bool IsAllowed(IEngineRuntime runtime, BackendRecipe recipe) =>
        runtime.Name != "process" || _options.ProcessRuntime || recipe.Protocol == BackendCatalogue.Grpc;

    private void Adopt(IEngineRuntime runtime, BackendRecipe recipe, EngineInstance instance)
    {
        _kept.Remove(instance.RunId, out var record);
        LogAdopted(instance.RunId, instance.DeploymentUid, runtime.Name);
        Track(EngineSupervisor.Adopt(_context, runtime, recipe, instance, record));
        if (record is not null && instance.IsEnded && record.BootId != _records.BootId)
            Relaunch(runtime, recipe, record);
    }

    /// <summary>Goes on with a run that was wanted when the machine went down, as another one; the control plane takes it over from the report.</summary>
    private void Relaunch(IEngineRuntime runtime, BackendRecipe recipe, RunRecord record)
    {
        if (record.Ending != RunEnding.None || record.Lease.ExpiresAt <= _time.GetUtcNow() || LaunchSpec.FromJson(record.Spec) is not { } spec)
            return;
        var next = Guid.NewGuid().ToString("N");
        LogRelaunched(record.RunId, next, record.DeploymentUid);
        Watched(record.RunId)?.Stop();
        Launch(runtime, recipe, spec, record.DeploymentUid, next, record.Lease, record.LatestVersion, _records.Open(record.Environment));
    }

    /// <summary>Goes on with a run that left no engine behind: one that was being prepared, or whose lease ended it.</summary>
    private void TakeUp(IEngineRuntime runtime, RunRecord record)
    {
        _kept.Remove(record.RunId);
        var spec = LaunchSpec.FromJson(record.Spec);
        var recipe = BackendCatalogue.Of(spec);
        if (recipe is null || !IsAllowed(runtime, recipe) || _engines.ContainsKey(record.RunId))
            return;
        if (record.Ending == RunEnding.Expired)
            Track(EngineSupervisor.Recall(_context, runtime, recipe, record));
        else if (record is { Ending: RunEnding.None, StartedAt: null })
            Launch(runtime, recipe, spec!, record.DeploymentUid, record.RunId, record.Lease, record.LatestVersion, _records.Open(record.Environment));
        else
            _records.Delete(record.RunId); // it is gone, and whoever wants another is the control plane
    }

    /// <summary>Whether a runtime is one of this node: containers always, others where something is allowed to be started by them, or was.</summary>
    private bool IsOffered(string runtime, NodeReport report) => ContainerRuntimes.All.Contains(runtime) || (runtime == "process" && _options.ProcessRuntime)
        || report.Backends.Any(backend => backend.Runtime == runtime) || _engines.Values.Any(engine => engine.Runtime == runtime);

    private void SetAnswering(IEngineRuntime runtime, bool answers)
    {
        var changed = !_answering.TryGetValue(runtime.Name, out var before) || before != answers;
        _answering[runtime.Name] = answers;
        if (changed)
            SignalChange();
    }

    [LoggerMessage(2201, LogLevel.Information, "Run {RunId} of deployment {DeploymentUid} was found on {Runtime} and is watched again.")]
    private partial void LogAdopted(string runId, string deploymentUid, string runtime);

    [LoggerMessage(2204, LogLevel.Information, "Run {RunId} of deployment {DeploymentUid} ended with the machine; run {NextRunId} goes on for it.")]
    private partial void LogRelaunched(string runId, string nextRunId, string deploymentUid);

    [LoggerMessage(2202, LogLevel.Information, "Runtime {Runtime} answers.")]
    private partial void LogRuntimeAnswers(string runtime);

    [LoggerMessage(2203, LogLevel.Warning, "Runtime {Runtime} does not answer: {Reason}")]
    private partial void LogRuntimeSilent(string runtime, string reason);
}
