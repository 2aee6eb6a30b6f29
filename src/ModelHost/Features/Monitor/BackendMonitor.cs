using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Gateway;
using ModelHost.Protocol;

namespace ModelHost.Features.Monitor;

/// <summary>What models' engines do and take, from what their nodes reported last: an engine that hangs delays nobody here.</summary>
internal sealed class BackendMonitor(DeploymentReads deployments, NodeRegistry nodes, RouteSource routes)
{
    private const int Failed = -1, Loading = 0, Busy = 1, Ready = 2;

    /// <summary>The state and memory of a model.</summary>
    public async Task<Result<BackendStatus>> StatusAsync(string model, CancellationToken cancellationToken)
    {
        var found = ServingDeployment.Named(await deployments.ServingAsync(cancellationToken), model);
        if (found.Count == 0)
            return NotLoaded(model);
        var each = found.Select(deployment => (Deployment: deployment, Status: Status(deployment))).ToArray();
        return each is [var (_, only)] ? only : Sum([.. each.Select(one => one.Status)]) with
        {
            Instances = [.. each.Select(one => new BackendInstance(one.Deployment.Id, one.Deployment.NodeId, one.Deployment.Status.ToWire(), one.Status.State, one.Status.Memory))],
        };
    }

    /// <summary>The tokens of a model.</summary>
    public async Task<Result<TokenMetrics>> TokensAsync(string model, CancellationToken cancellationToken)
    {
        var found = ServingDeployment.Named(await deployments.ServingAsync(cancellationToken), model);
        if (found.Count == 0)
            return NotLoaded(model);
        var engines = found.Select(Engine).OfType<Engine>().ToArray();
        var (metrics, backends) = (engines.Select(engine => engine.Metrics).OfType<EngineMetrics>().ToArray(), engines.Select(engine => engine.Backend).OfType<BackendReading>().ToArray());
        return new TokenMetrics
        {
            TokensPerSecond = metrics.Sum(one => one.HasGenerationThroughput ? one.GenerationThroughput : one.GenerationTps) + backends.Sum(one => one.TokensPerSecond),
            TokensGenerated = (long)metrics.Sum(one => one.GenerationTokens) + backends.Sum(one => (long)one.TokensGenerated),
            PromptTokensProcessed = (long)metrics.Sum(one => one.PromptTokens) + backends.Sum(one => (long)one.PromptTokensProcessed),
        };
    }

    /// <summary>The backends that some node can start, and the models that run.</summary>
    public async Task<SystemInformation> SystemAsync(CancellationToken cancellationToken)
    {
        var reports = nodes.All.Select(node => node.Report).OfType<NodeReport>().ToArray();
        var runtimes = reports.SelectMany(report => report.Runtimes).ToHashSet();
        var serving = await deployments.ServingAsync(cancellationToken);
        return new SystemInformation(
            [.. BackendCatalogue.BuiltIn.Values.Where(recipe => recipe.Runtimes.Any(runtimes.Contains)).Select(recipe => recipe.Name)
                .Concat(reports.SelectMany(report => report.Backends).Select(backend => backend.Name)).Distinct().Order(StringComparer.Ordinal)],
            [.. serving.Where(one => one.Status is DeploymentStatus.Running or DeploymentStatus.PausedRam).Select(one => new LoadedModel(one.Spec.PublicName, one.Spec.Backend))]);
    }

    /// <summary>Whether calls are under way at a deployment, of the gateway or, as its engine counted last, of anybody.</summary>
    public bool IsBusy(ServingDeployment deployment) =>
        routes.Requests.Count(deployment.Uid) > 0 || Engine(deployment)?.Metrics is { } metrics && metrics.RequestsRunning + metrics.RequestsWaiting > 0;

    private static Failure NotLoaded(string model) => new(FailureKind.NotFound, "backend.not_loaded", $"backend {model} is not currently loaded");

    private BackendStatus Status(ServingDeployment deployment)
    {
        var engine = Engine(deployment);
        var usage = engine?.Processes;
        return new BackendStatus
        {
            State = deployment.Status switch
            {
                DeploymentStatus.Starting or DeploymentStatus.Loading => Loading,
                DeploymentStatus.PausedRam => Ready,
                DeploymentStatus.Running => (int)BackendReadings.State(engine?.Backend, IsBusy(deployment)),
                DeploymentStatus.Stopping => Busy,
                DeploymentStatus.Error or DeploymentStatus.Unreachable => Failed,
                DeploymentStatus.Stopped or DeploymentStatus.Expired => Failed, // not asked for
            },
            Memory = engine is null ? null : BackendReadings.Memory(engine.Backend) ?? Memory(deployment, engine),
            MemoryInfo = usage is null ? null : new ProcessMemory(usage.RssBytes, usage.VmsBytes),
            MemoryPercent = usage is null ? null : Math.Round(usage.MemoryPercent, 3),
            CpuPercent = usage is null ? null : Math.Round(usage.CpuPercent, 3),
        };
    }

    private BackendMemory? Memory(ServingDeployment deployment, Engine engine)
    {
        var breakdown = new Dictionary<string, long>();
        var isAsleep = deployment.Status == DeploymentStatus.PausedRam;
        // what sleeps has left the GPU
        foreach (var (part, bytes) in engine.MemoryParts.Where(_ => !isAsleep).OrderByDescending(part => part.Key, StringComparer.Ordinal))
            breakdown[part] = bytes;
        var told = breakdown.Values.Sum();
        var gpu = GpuBytes(deployment);
        if (gpu is { } used)
            breakdown["gpu"] = used;
        if (engine.Processes is { } usage)
            breakdown[isAsleep ? "ram" : "rss"] = usage.RssBytes;
        return breakdown.Count == 0 ? null : new BackendMemory((gpu ?? told) + (engine.Processes?.RssBytes ?? 0), breakdown);
    }

    /// <summary>GPU memory of its processes as the driver counts it; null: it does not tell.</summary>
    private long? GpuBytes(ServingDeployment deployment)
    {
        if (nodes.Find(deployment.NodeId)?.Report is not { GpuProcessError: "" } report)
            return null;
        var processes = report.Gpus.Where(gpu => gpu.Stale.Length == 0).SelectMany(gpu => gpu.Processes).Where(process => process.RunId == deployment.RunId).ToArray();
        return processes.Length > 0 && processes.All(process => process.HasMemoryUsedBytes) ? processes.Sum(process => process.MemoryUsedBytes) : null;
    }

    // of a node that has been silent too long nothing is known
    private Engine? Engine(ServingDeployment deployment) =>
        nodes.Find(deployment.NodeId) is { Report: not null } node ? node.Engine(deployment.RunId) : null;

    private static BackendStatus Sum(BackendStatus[] parts)
    {
        var memories = parts.Select(part => part.Memory).OfType<BackendMemory>().ToArray();
        var processes = parts.Where(part => part.MemoryInfo is not null).ToArray();
        return new BackendStatus
        {
            // a name is as ready as the readiest that serves it
            State = parts.Max(part => part.State),
            Memory = memories.Length == 0 ? null : new BackendMemory(memories.Sum(memory => memory.Total),
                memories.SelectMany(memory => memory.Breakdown).GroupBy(part => part.Key).ToDictionary(group => group.Key, group => group.Sum(part => part.Value))),
            MemoryInfo = processes.Length == 0 ? null : new ProcessMemory(processes.Sum(part => part.MemoryInfo!.Rss), processes.Sum(part => part.MemoryInfo!.Vms)),
            MemoryPercent = processes.Length == 0 ? null : processes.Sum(part => part.MemoryPercent),
            CpuPercent = processes.Length == 0 ? null : processes.Sum(part => part.CpuPercent),
        };
    }
}
