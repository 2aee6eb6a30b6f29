using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Cluster;

/// <summary>Machines with an address and a Docker engine each, as <c>tests/bench/node-lab</c> makes them on this one, with the simulator's image in every engine.</summary>
internal sealed class NodeLab : IAsyncDisposable
{
    private readonly string _number;

    private NodeLab(string number) => _number = number;

    public IReadOnlyList<LabNode> Nodes { get; private set; } = [];

    /// <summary>This machine's address on their network.</summary>
    public string Address => $"198.18.{_number}.1";

    /// <summary>Makes one; skips the calling test where that cannot be done.</summary>
    public static async Task<NodeLab> StartAsync(RealDocker docker, int count)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "network namespaces need root");
        var (code, number, errors) = await NodeScripts.RunProgramAsync(Script("node-lab"), ["up", $"{count}"], "");
        Assert.SkipWhen(code != 0, $"no nodes can be made here: {errors.Trim()}");
        var lab = new NodeLab(number.Trim());
        try
        {
            await docker.NeedSimulatorAsync();
            lab.Nodes = [.. Enumerable.Range(1, count).Select(i => new LabNode($"mh{lab._number}n{i}", $"198.18.{lab._number}.{10 + i}"))];
            var image = Path.Combine(lab.Nodes[0].Surroundings.Data, "image.tar");
            await docker.CliAsync(TestContext.Current.CancellationToken, "save", "-o", image, $"{RealDocker.SimulatorRepository}:{RealDocker.SimulatorTag}");
            await Task.WhenAll(lab.Nodes.Select(node => node.StartEngineAsync(image)));
            File.Delete(image);
            return lab;
        }
        catch
        {
            await lab.DisposeAsync();
            throw;
        }
    }

    /// <summary>Pulls the cable of a node.</summary>
    public static Task CutAsync(LabNode node) => RunAsync(Script("node-lab"), "cut", node.Name);

    /// <summary>Plugs it in again.</summary>
    public static Task JoinAsync(LabNode node) => RunAsync(Script("node-lab"), "join", node.Name);

    public async ValueTask DisposeAsync()
    {
        await Task.WhenAll(Nodes.Select(node => node.DisposeAsync().AsTask()));
        await RunAsync(Script("node-lab"), "down", _number);
    }

    internal static string Script(string name) => Path.Combine(RealDocker.RepositoryRoot, "tests", "bench", name);

    /// <summary>Runs a program that must succeed.</summary>
    internal static async Task<string> RunAsync(string program, params string[] arguments)
    {
        var (code, output, errors) = await NodeScripts.RunProgramAsync(program, arguments, "");
        code.ShouldBe(0, $"{program} {string.Join(' ', arguments)}: {errors}");
        return output;
    }
}

/// <summary>One of them.</summary>
internal sealed class LabNode(string name, string address) : IAsyncDisposable
{
    private readonly string _engine = Directory.CreateTempSubdirectory("mhl-").FullName;

    /// <summary>The name of its network.</summary>
    public string Name => name;

    public string Address => address;

    /// <summary>Its data folder and ports.</summary>
    public TestNode Surroundings { get; } = new() { DirectListen = "0.0.0.0" };

    private string DockerHost => $"unix://{_engine}/docker.sock";

    public async Task StartEngineAsync(string image)
    {
        await NodeLab.RunAsync("env", $"DOCKER_NETNS={name}", NodeLab.Script("start-docker"), _engine);
        await NodeLab.RunAsync("docker", "-H", DockerHost, "load", "-q", "-i", image);
    }

    /// <summary>Starts its agent.</summary>
    public async Task<ModelHostProcess> StartAgentAsync(string label, params string[] more)
    {
        var agent = ModelHostProcess.StartOn(name, [
            "node", "--data", Surroundings.Data, "--name", label, "--listen", "0.0.0.0:9000", .. more,
            .. Surroundings.Configuration.Where(setting => setting.StartsWith("Node:", StringComparison.Ordinal)), $"Node:DockerHost={DockerHost}"]);
        await agent.ListeningAsync();
        return agent;
    }

    /// <summary>What runs in its engine: id, process and start of each container.</summary>
    public async Task<string[]> ContainersAsync()
    {
        var ids = (await NodeLab.RunAsync("docker", "-H", DockerHost, "ps", "-q", "--no-trunc")).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        if (ids.Length == 0)
            return [];
        var found = JsonSerializer.Deserialize<JsonElement>(await NodeLab.RunAsync("docker", ["-H", DockerHost, "inspect", .. ids]));
        return [.. found.EnumerateArray().Select(one =>
            $"{one.GetProperty("Id").GetString()} {one.GetProperty("State").GetProperty("Pid").GetInt32()} {one.GetProperty("State").GetProperty("StartedAt").GetString()}").Order(StringComparer.Ordinal)];
    }

    public async ValueTask DisposeAsync()
    {
        await NodeLab.RunAsync(NodeLab.Script("stop-docker"), _engine, "--purge");
        Surroundings.Dispose();
    }
}
