using Microsoft.Extensions.DependencyInjection;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;
using ModelHost.Rpc;
using ModelHost.TestKit;
using ModelHost.Tests.Artifacts;

namespace ModelHost.Tests.Cluster;

/// <summary>The built agent as a process of its own, whose plug is pulled in the middle of a pull.</summary>
public sealed class AgentPullTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Agent_that_is_killed_goes_on_with_its_pull_and_the_hash_is_right()
    {
        await using var cluster = await TestCluster.StartAsync();
        await using var server = await FileServer.StartAsync();
        var weights = server.Put("/weights.gguf", FileServer.Bytes(3_000_000));
        weights.HoldAfter = 1_000_000;
        using var surroundings = new TestNode();
        var port = TestPorts.Free();
        var token = await cluster.TokenAsync();
        var request = Pulls.Model("m", Pulls.From(server.Url("/weights.gguf"), sha256: weights.Sha256));

        await using (var agent = Start(surroundings, port, "--join", cluster.Join, "--token", token))
        {
            await agent.ListeningAsync();
            var link = await LinkAsync(cluster);
            await link.PullAsync(request, Ct);
            await Pulls.UntilAsync(link, request.PullId, pull => pull.DoneBytes == 1_000_000);
            await agent.KillAsync();
        }
        weights.Release();
        await using var again = Start(surroundings, port);
        await again.ListeningAsync();
        var installed = await Deadline.UntilAsync(() => InstalledAsync(cluster), artifact => artifact is not null, seconds: 120, what: "the model to be installed");

        (installed!.Digest, installed.PullId).ShouldBe(("sha256:" + weights.Sha256, request.PullId));
        (await File.ReadAllBytesAsync(Path.Combine(surroundings.Data, "models", "m", "weights.gguf"), Ct)).ShouldBe(weights.Content);
        server.Requests.Select(asked => asked.Range).ShouldBe(["", "bytes=1000000-"]);
    }

    private static ModelHostProcess Start(TestNode node, int port, params string[] more) =>
        ModelHostProcess.Start(["node", "--data", node.Data, "--name", "gpu-1", "--listen", $"127.0.0.1:{port}", .. more, .. node.Configuration.Where(setting => !setting.StartsWith("Releases:", StringComparison.Ordinal))]);

    private static async Task<INode> LinkAsync(TestCluster cluster)
    {
        var id = await cluster.StatusAsync("gpu-1", "online");
        return cluster.Host.Services.GetRequiredService<NodeRegistry>().Find(id)!.Link;
    }

    private static async Task<Artifact?> InstalledAsync(TestCluster cluster)
    {
        try
        {
            return await Pulls.InstalledAsync(await LinkAsync(cluster), "m");
        }
        catch (Exception e) when (e is RpcException or InvalidOperationException)
        {
            return null; // it is not back yet
        }
    }
}
