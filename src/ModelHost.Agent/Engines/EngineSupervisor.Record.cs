using Microsoft.Extensions.Logging;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Engines;

// what is kept of the run on the disk: what was told of it, and what was seen
internal sealed partial class EngineSupervisor
{
    private RunRecord _record;

    /// <summary>Where an engine listens that has a loopback port.</summary>
    public static string UrlOf(int port) => $"http://127.0.0.1:{port}";

    /// <summary>What is known now, for who does not report it: its last counters are not told by that.</summary>
    public Engine Peek()
    {
        lock (_lock)
            return _engine.Clone();
    }

    private LaunchSpec Spec => LaunchSpec.FromJson(_record.Spec) ?? throw new InvalidDataException("the launch spec is of an unknown version");

    private static RunRecord RecordOf(SupervisorContext context, IEngineRuntime runtime, EngineLaunch launch) => new()
    {
        DeploymentUid = launch.DeploymentUid,
        RunId = launch.RunId,
        Runtime = runtime.Name,
        Spec = launch.Spec.ToJson(),
        Lease = launch.Lease,
        LatestVersion = launch.LatestVersion,
        Environment = context.Records.Seal(launch.Env),
        BootId = context.Records.BootId,
    };

    private static RunRecord RecordOf(SupervisorContext context, IEngineRuntime runtime, EngineInstance instance) => new()
    {
        DeploymentUid = instance.DeploymentUid,
        RunId = instance.RunId,
        Runtime = runtime.Name,
        Spec = instance.SpecJson,
        Lease = instance.Lease ?? new Lease(0, null, LaunchSpec.FromJson(instance.SpecJson)?.DurationSeconds),
        Environment = context.Records.Seal(instance.Env),
        BootId = context.Records.BootId,
    };

    /// <summary>Takes what is stored of the deployment now, unless a later lease is known.</summary>
    public void Update(string spec, Lease lease) => Keep(record => lease.Version < record.Lease.Version ? record : record with
    {
        Spec = spec,
        Lease = record.ReadyAt is { } readyAt ? lease.CountedFrom(readyAt) : lease,
    });

    /// <summary>Ends the engine if its lease is over; nobody has to be asked.</summary>
    public void ExpireIfDue(DateTimeOffset now)
    {
        lock (_lock)
        {
            if (_record.Ending != RunEnding.None || !(_record.Lease.ExpiresAt <= now))
                return;
        }
        LogExpired(RunId);
        Say("[modelhost] the lease is over");
        Keep(record => record with { Ending = RunEnding.Expired });
        _expire.Cancel();
    }

    /// <summary>The values of its variables.</summary>
    public IReadOnlyDictionary<string, string> Environment()
    {
        lock (_lock)
            return _context.Records.Open(_record.Environment);
    }

    /// <summary>Goes on with an end that was begun before the host was ended.</summary>
    private void Resume(RunEnding ending)
    {
        if (ending == RunEnding.Told)
            _stop.Cancel();
        else if (ending == RunEnding.Expired)
            _expire.Cancel();
    }

    /// <summary>Changes what is kept of the run. A full disk costs what a restart would have known, and never an engine.</summary>
    private void Keep(Func<RunRecord, RunRecord> change)
    {
        lock (_lock)
        {
            var changed = change(_record);
            if (changed == _record)
                return;
            _record = changed;
            Show(changed);
            Write(changed);
        }
        _context.Changed();
    }

    /// <summary>Notes where the engine is, so that its public port is served again before its runtime has been asked.</summary>
    private RunRecord Placed(RunRecord record, EngineInstance instance)
    {
        try
        {
            return record.EnginePort == instance.EnginePort && (_context.Records.OpenOne(record.EngineKey) ?? "") == instance.EngineKey ? record
                : record with { EnginePort = instance.EnginePort, EngineKey = _context.Records.Seal(instance.EngineKey) };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // there is no key to seal with yet: the runtime has to be asked
            LogNotKept(RunId, e.Message);
            return record;
        }
    }

    /// <summary>Keeps what a line tells of the engine's memory.</summary>
    private void ReadMemory(string line)
    {
        if (MemoryLines.Read(_recipe, line) is not ({ } part, var ofOne))
            return;
        Keep(record =>
        {
            var bytes = ofOne * Math.Max(1, LaunchSpec.FromJson(record.Spec)?.TensorParallelSize ?? 1);
            return record.MemoryParts?.GetValueOrDefault(part) == bytes ? record
                : record with { MemoryParts = new Dictionary<string, long>(record.MemoryParts ?? new Dictionary<string, long>()) { [part] = bytes } };
        });
    }

    private void Write(RunRecord record)
    {
        if (IsGone)
            return;
        try
        {
            _context.Records.Write(record);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            LogNotKept(RunId, e.Message);
        }
    }

    private void Show(RunRecord record)
    {
        (_engine.LaunchSpec, _engine.Lease) = (record.Spec, record.Lease.ToJson());
        foreach (var (part, bytes) in record.MemoryParts ?? new Dictionary<string, long>())
            _engine.MemoryParts[part] = bytes;
        if (record.StartedAt is { } startedAt)
            _engine.StartedAt = startedAt.ToUnixTimeMilliseconds() / 1000.0;
        if (record.ReadyAt is { } readyAt)
            _engine.ReadyAt = readyAt.ToUnixTimeMilliseconds() / 1000.0;
    }

    [LoggerMessage(2106, LogLevel.Information, "The lease of run {RunId} is over.")]
    private partial void LogExpired(string runId);

    [LoggerMessage(2107, LogLevel.Warning, "What is known of run {RunId} could not be written down: {Reason}")]
    private partial void LogNotKept(string runId, string reason);
}
