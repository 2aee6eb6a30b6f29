using Google.Protobuf.Collections;
using ModelHost.Protocol;

namespace ModelHost.Agent.Reports;

/// <summary>
/// A report taken apart into what changes seldom and what changes all the time, so that only the difference to an earlier one has to be told, and a
/// report can be made of that again. The messages that it is made of are never changed: reports may share them.
/// </summary>
public sealed class ReportParts
{
    private readonly Dictionary<int, (Gpu Fixed, GpuLoad Load)> _gpus = [];
    private readonly Dictionary<string, (Engine Fixed, EngineLoad Load)> _engines = [];
    private NodeReport _head;
    private MachineLoad _machine;

    /// <summary>Takes a report apart, and leaves it as it is.</summary>
    public ReportParts(NodeReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        _head = report.Clone();
        _machine = new MachineLoad { Disk = _head.Disk, Cpu = _head.Cpu, Memory = _head.Memory };
        if (_head.HasUsageWaiting)
            _machine.UsageWaiting = _head.UsageWaiting;
        foreach (var gpu in _head.Gpus)
            _gpus[gpu.Index] = (gpu, Take(gpu));
        foreach (var engine in _head.Engines)
            _engines[engine.RunId] = (engine, Take(engine));
        _head.Gpus.Clear();
        _head.Engines.Clear();
        (_head.Disk, _head.Cpu, _head.Memory) = (null, null, null);
        _head.ClearUsageWaiting();
    }

    /// <summary>What is other than before; an update without anything where all is the same.</summary>
    public ReportUpdate Since(ReportParts before)
    {
        ArgumentNullException.ThrowIfNull(before);
        var update = new ReportUpdate();
        if (!_head.Equals(before._head))
            update.Head = _head;
        if (!_machine.Equals(before._machine))
            update.Machine = _machine;
        Compare(_gpus, before._gpus, update.Gpus, update.GpuLoads, update.RemovedGpus);
        Compare(_engines, before._engines, update.Engines, update.EngineLoads, update.RemovedEngines);
        return update;
    }

    /// <summary>Takes what is new. Load of what was not told is passed over.</summary>
    public void Apply(ReportUpdate update)
    {
        ArgumentNullException.ThrowIfNull(update);
        _head = update.Head ?? _head;
        _machine = update.Machine ?? _machine;
        foreach (var gone in update.RemovedGpus)
            _gpus.Remove(gone);
        foreach (var gone in update.RemovedEngines)
            _engines.Remove(gone);
        foreach (var gpu in update.Gpus)
            _gpus[gpu.Index] = (gpu, _gpus.TryGetValue(gpu.Index, out var known) ? known.Load : new GpuLoad { Index = gpu.Index });
        foreach (var engine in update.Engines)
            _engines[engine.RunId] = (engine, _engines.TryGetValue(engine.RunId, out var known) ? known.Load : new EngineLoad { RunId = engine.RunId });
        foreach (var load in update.GpuLoads)
        {
            if (_gpus.TryGetValue(load.Index, out var gpu))
                _gpus[load.Index] = (gpu.Fixed, load);
        }
        foreach (var load in update.EngineLoads)
        {
            if (_engines.TryGetValue(load.RunId, out var engine))
                _engines[load.RunId] = (engine.Fixed, load);
        }
    }

    /// <summary>The report that they make.</summary>
    public NodeReport Whole()
    {
        var report = _head.Clone();
        (report.Disk, report.Cpu, report.Memory) = (_machine.Disk, _machine.Cpu, _machine.Memory);
        if (_machine.HasUsageWaiting)
            report.UsageWaiting = _machine.UsageWaiting;
        report.Gpus.AddRange(_gpus.Values.OrderBy(gpu => gpu.Fixed.Index).Select(gpu => Join(gpu.Fixed, gpu.Load)));
        report.Engines.AddRange(_engines.Values.Select(engine => Join(engine.Fixed, engine.Load)));
        return report;
    }

    private static void Compare<TKey, TFixed, TLoad>(
        Dictionary<TKey, (TFixed Fixed, TLoad Load)> now, Dictionary<TKey, (TFixed Fixed, TLoad Load)> before,
        RepeatedField<TFixed> stills, RepeatedField<TLoad> load, RepeatedField<TKey> removed)
        where TKey : notnull
        where TFixed : notnull
        where TLoad : notnull
    {
        foreach (var (key, part) in now)
        {
            var isKnown = before.TryGetValue(key, out var old);
            if (!isKnown || !part.Fixed.Equals(old.Fixed))
                stills.Add(part.Fixed);
            if (!isKnown || !part.Load.Equals(old.Load))
                load.Add(part.Load);
        }
        removed.AddRange(before.Keys.Where(key => !now.ContainsKey(key)));
    }

    private static GpuLoad Take(Gpu gpu)
    {
        var load = new GpuLoad { Index = gpu.Index, ReadAt = gpu.ReadAt };
        if (gpu.HasMemoryUsedBytes)
            load.MemoryUsedBytes = gpu.MemoryUsedBytes;
        if (gpu.HasUtilizationPercent)
            load.UtilizationPercent = gpu.UtilizationPercent;
        if (gpu.HasTemperatureCelsius)
            load.TemperatureCelsius = gpu.TemperatureCelsius;
        if (gpu.HasPowerWatts)
            load.PowerWatts = gpu.PowerWatts;
        gpu.ClearMemoryUsedBytes();
        gpu.ClearUtilizationPercent();
        gpu.ClearTemperatureCelsius();
        gpu.ClearPowerWatts();
        gpu.ReadAt = 0;
        return load;
    }

    private static Gpu Join(Gpu still, GpuLoad load)
    {
        var gpu = still.Clone();
        gpu.ReadAt = load.ReadAt;
        if (load.HasMemoryUsedBytes)
            gpu.MemoryUsedBytes = load.MemoryUsedBytes;
        if (load.HasUtilizationPercent)
            gpu.UtilizationPercent = load.UtilizationPercent;
        if (load.HasTemperatureCelsius)
            gpu.TemperatureCelsius = load.TemperatureCelsius;
        if (load.HasPowerWatts)
            gpu.PowerWatts = load.PowerWatts;
        return gpu;
    }

    private static EngineLoad Take(Engine engine)
    {
        var load = new EngineLoad { RunId = engine.RunId, Metrics = engine.Metrics, Processes = engine.Processes };
        (engine.Metrics, engine.Processes) = (null, null);
        return load;
    }

    private static Engine Join(Engine still, EngineLoad load)
    {
        var engine = still.Clone();
        (engine.Metrics, engine.Processes) = (load.Metrics, load.Processes);
        return engine;
    }
}
