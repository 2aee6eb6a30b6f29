using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Agent;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Proxy;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Nodes;

/// <summary>A node of this process without a control plane, and runs of simulated engines on it.</summary>
internal static class NodeRuns
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Opens one.</summary>
    public static async Task<LocalNode> OpenAsync(TestNode surroundings, DownloadOptions? downloads = null, NodeProxy? proxy = null, string? dockerHost = null, TimeProvider? time = null)
    {
        var options = new NodeOptions
        {
            DockerHost = dockerHost ?? surroundings.DockerHost,
            ProcessRuntime = true,
            NvidiaSmi = surroundings.NvidiaSmi,
            EnginePortFirst = surroundings.Ports.First,
            EnginePortLast = surroundings.Ports.Last,
            StopGrace = TimeSpan.FromSeconds(10),
        };
        var node = new LocalNode(new NodeIdentity("cluster", "node", surroundings.Data), options, downloads ?? new DownloadOptions(), time ?? TimeProvider.System, NullLoggerFactory.Instance, proxy);
        await node.OpenAsync(Ct);
        return node;
    }

    /// <summary>A request for a run of the simulator.</summary>
    public static StartRequest Request(Lease lease, params (string Key, string Value)[] variables)
    {
        var spec = new LaunchSpec
        {
            Backend = "simulator",
            Runtime = "process",
            ModelName = "demo/tiny",
            Owner = "tests",
            GpuMemoryFraction = 0.4,
            EnvVarKeys = [.. variables.Select(variable => variable.Key)],
            DurationSeconds = lease.DurationSeconds,
        };
        var request = new StartRequest { DeploymentUid = Guid.NewGuid().ToString(), RunId = Guid.NewGuid().ToString("N"), LaunchSpec = spec.ToJson(), Lease = lease.ToJson() };
        request.Env.Add(variables.ToDictionary(variable => variable.Key, variable => variable.Value));
        return request;
    }

    /// <summary>What it says now.</summary>
    public static Task<NodeReport> ReportAsync(INode node) => node.ReportAsync(new ReportRequest(), Ct);

    /// <summary>Waits until a run has come this far.</summary>
    public static async Task<Engine> PhaseAsync(INode node, string run, EnginePhase phase)
    {
        var report = await Deadline.UntilAsync(
            () => ReportAsync(node), report => report.Engines.FirstOrDefault(engine => engine.RunId == run)?.Phase == phase, what: $"run {run} to be {phase}");
        return report.Engines.Single(engine => engine.RunId == run);
    }

    /// <summary>Waits until nothing is said of a run any more, by a node that has looked for what it runs.</summary>
    public static Task<NodeReport> GoneAsync(INode node, string run) => Deadline.UntilAsync(
        () => ReportAsync(node), report => report.Runtimes.Contains("process") && report.Engines.All(engine => engine.RunId != run), what: $"run {run} to be gone");
}
