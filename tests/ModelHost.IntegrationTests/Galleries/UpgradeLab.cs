using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.IntegrationTests.Lifecycle;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>
/// A control plane whose nodes take the images of vLLM from a registry of their own, over a network that can be slow. Both are processes, and the
/// second node has a Docker engine of its own.
/// </summary>
internal sealed class UpgradeLab : IAsyncDisposable
{
    /// <summary>What nodes have from the beginning, and what there is to be had.</summary>
    public const string Old = "0.28.0", New = "0.29.0";

    private readonly int _port = TestPorts.Free(), _clusterPort = TestPorts.Free(), _agentPort = TestPorts.Free();
    private readonly TestNode _controlPlane = new();
    private readonly List<RealDocker> _others = [];
    private readonly List<TestNode> _otherNodes = [];
    private string[] _serve = [];
    private TestNode? _served;

    private UpgradeLab(StandInEngine registry, EngineNode node) => (Registry, Node) = (registry, node);

    /// <summary>Where images come from.</summary>
    public StandInEngine Registry { get; }

    /// <summary>The first node, on the engine that all tests share.</summary>
    public EngineNode Node { get; }

    /// <summary>The control plane.</summary>
    public ModelHostProcess Host { get; private set; } = null!;

    /// <summary>The agents, as they were started last.</summary>
    public List<ModelHostProcess> Agents { get; } = [];

    /// <summary>A client of the control plane, whichever process it is.</summary>
    public HttpClient Client { get; private set; } = null!;

    /// <summary>Compressed bytes of the new release.</summary>
    public long NewBytes { get; private set; }

    /// <summary>Makes one whose first node is the control plane's own.</summary>
    public static async Task<UpgradeLab> StartAsync(RealDockerFixture fixture)
    {
        var lab = await MakeAsync(fixture);
        (lab._served, lab._serve) = (lab.Node.Surroundings, [.. lab.Settings, .. lab.Images]);
        await lab.ServeAsync();
        return lab;
    }

    /// <summary>Makes one whose first node is an agent's.</summary>
    public static async Task<UpgradeLab> StartApartAsync(RealDockerFixture fixture)
    {
        var lab = await MakeAsync(fixture);
        (lab._served, lab._serve) = (lab._controlPlane, [.. lab.Settings, "--no-local-node"]);
        await lab.ServeAsync();
        await lab.JoinAsync(lab.Node.Surroundings, "gpu-1");
        return lab;
    }

    /// <summary>Starts the control plane, again after it was killed.</summary>
    public async Task ServeAsync() => Host = await ModelHostProcess.ServeAsync(_served!, _port, _serve);

    /// <summary>Starts the agent of the first node again.</summary>
    public async Task AgainAsync() => Agents.Add(await AgentAsync(Node.Surroundings, "gpu-1"));

    /// <summary>Adds a node with an engine of its own that has the old release.</summary>
    /// <returns>Its id.</returns>
    public async Task<int> AddNodeAsync(string name)
    {
        var engine = await Node.Engine.StartAnotherAsync(Ct);
        _others.Add(engine);
        Assert.SkipWhen(engine.SkipReason is not null, engine.SkipReason ?? "");
        var surroundings = new TestNode(engine);
        _otherNodes.Add(surroundings);
        var image = Path.Combine(surroundings.Data, "image.tar");
        await Node.Engine.CliAsync(Ct, "save", "-o", image, $"{Registry.Repository}:v{Old}");
        await engine.CliAsync(Ct, "load", "-q", "-i", image);
        File.Delete(image);
        return await JoinAsync(surroundings, name);
    }

    /// <summary>Asks for an upgrade of vLLM.</summary>
    /// <returns>The job's id.</returns>
    public async Task<string> UpgradeAsync(string version, params int[] nodes)
    {
        using var asked = await Client.PostAsync(new Uri($"/backends/upgrade/vllm?version={version}{string.Concat(nodes.Select(node => $"&nodes={node}"))}", UriKind.Relative), null, Ct);
        var body = await asked.Content.ReadAsStringAsync(Ct);
        asked.IsSuccessStatusCode.ShouldBeTrue(body);
        return JsonSerializer.Deserialize<JsonElement>(body).Text("id");
    }

    /// <summary>A job.</summary>
    public Task<JsonElement> JobAsync(string job) => Client.JsonAsync($"/backends/jobs/{job}");

    /// <summary>Waits until some of the image has come and some has not.</summary>
    public async Task<JsonElement> PullingAsync(string job)
    {
        var pulling = await Deadline.UntilAsync(
            () => JobAsync(job), one => one.GetProperty("processed").GetBoolean() || (Number(one, "current_bytes") is > 0 and var bytes && bytes < NewBytes), 120, "the pull to be under way");
        pulling.GetProperty("processed").GetBoolean().ShouldBeFalse(pulling.ToString());
        return pulling;
    }

    /// <summary>Waits for the end of a job.</summary>
    public Task<JsonElement> EndAsync(string job) => Deadline.UntilAsync(() => JobAsync(job), one => one.GetProperty("processed").GetBoolean(), 180, "the job to end");

    /// <summary>What a node says that it has of vLLM.</summary>
    public async Task<JsonElement> BackendAsync(int node) => (await Client.JsonAsync($"/api/nodes/{node}/backends")).EnumerateArray().Single(one => one.Text("name") == "vllm");

    /// <summary>Looks for upgrades now.</summary>
    /// <returns>What there is to say of vLLM; undefined: nothing.</returns>
    public async Task<JsonElement> UpgradesAsync()
    {
        using var looked = await Client.PostAsync(new Uri("/backends/upgrades/check?wait=true", UriKind.Relative), null, Ct);
        looked.EnsureSuccessStatusCode();
        return (await Client.JsonAsync("/backends/upgrades")).TryGetProperty("vllm", out var vllm) ? vllm : default;
    }

    /// <summary>Tags of the repository in the first node's engine.</summary>
    public async Task<string[]> TagsAsync() => [.. (await Node.Client.ListImagesAsync(Registry.Repository, Ct)).SelectMany(image => image.RepoTags).Select(tag => tag.Split(':')[^1]).Order(StringComparer.Ordinal)];

    /// <summary>A number of a job; 0: it does not say.</summary>
    public static long Number(JsonElement job, string property) => job.TryGetProperty(property, out var number) ? number.GetInt64() : 0;

    public async ValueTask DisposeAsync()
    {
        Client?.Dispose();
        foreach (var agent in Agents)
            await agent.DisposeAsync();
        if (Host is not null)
            await Host.DisposeAsync();
        await Node.DisposeAsync();
        foreach (var node in _otherNodes)
            node.Dispose();
        foreach (var engine in _others)
            await engine.DisposeAsync();
        _controlPlane.Dispose();
        await Registry.DisposeAsync();
    }

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    // figures of a pull come with the reports of its node
    private string[] Settings => [$"Cluster:Listen=127.0.0.1:{_clusterPort}", "Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1"];

    private string[] Images => [$"Node:ImageRepository={Registry.Repository}"];

    private static async Task<UpgradeLab> MakeAsync(RealDockerFixture fixture)
    {
        var registry = await StandInEngine.MakeAsync(fixture);
        var lab = new UpgradeLab(registry, await EngineNode.MakeAsync(fixture));
        lab.Client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{lab._port}") };
        lab.NewBytes = registry.Release($"v{New}");
        await fixture.Docker.CliAsync(Ct, "tag", $"{RealDocker.SimulatorRepository}:{RealDocker.SimulatorTag}", $"{registry.Repository}:v{Old}");
        return lab;
    }

    private async Task<int> JoinAsync(TestNode node, string name)
    {
        using var made = await Client.PostAsJsonAsync("/api/nodes/join-tokens", new { }, Ct);
        var token = (await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).Text("token");
        Agents.Add(await AgentAsync(node, name, "--join", $"127.0.0.1:{_clusterPort}", "--token", token));
        var all = await Deadline.UntilAsync(() => Client.JsonAsync("/api/nodes"), nodes => nodes.EnumerateArray().Any(one => Is(one) && one.Text("status") == "online"
            && one.GetProperty("available_runtimes") is { ValueKind: JsonValueKind.Array } runtimes && runtimes.EnumerateArray().Any(runtime => runtime.GetString() == "docker")), 60, $"{name} to be online");
        return all.EnumerateArray().Single(Is).GetProperty("id").GetInt32();
        bool Is(JsonElement one) => one.Text("hostname") == name;
    }

    private async Task<ModelHostProcess> AgentAsync(TestNode node, string name, params string[] more)
    {
        // the first keeps its port, by which the control plane knows it
        var port = node == Node.Surroundings ? _agentPort : 0;
        var agent = ModelHostProcess.Start(["node", "--data", node.Data, "--name", name, "--listen", $"127.0.0.1:{port}", .. more,
            .. node.Configuration.Where(setting => setting.StartsWith("Node:", StringComparison.Ordinal)), .. Images]);
        await agent.ListeningAsync();
        return agent;
    }
}
