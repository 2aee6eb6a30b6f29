using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.TestKit;
using ModelHost.Tests.Cluster;

namespace ModelHost.Tests.Galleries;

/// <summary>A model is installed on the nodes that it is asked for, the one in this process and one over the wire alike.</summary>
public sealed class ModelNodesTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_model_goes_to_the_nodes_named_and_leaves_all_of_them()
    {
        await using var server = await FileServer.StartAsync();
        var weights = server.Put("/w.gguf", FileServer.Bytes(200_000));
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var remote = await cluster.StatusAsync("gpu-1", "online");
        var local = (await cluster.Host.Client.JsonAsync("/api/nodes")).EnumerateArray().Select(node => node.GetProperty("id").GetInt32()).Single(id => id != remote);
        var folders = new[] { cluster.Host.Node.Data, agent.Node.Data }.Select(data => Path.Combine(data, "models", "tiny")).ToArray();
        object Request(params object[] nodes) => new
        {
            name = "tiny",
            config_file = new { backend = "simulator" },
            files = new[] { new { uri = server.Url("/w.gguf"), sha256 = weights.Sha256 } },
            nodes,
        };

        using var unsaid = await cluster.Host.Client.PostAsJsonAsync("/models/apply", Request(), Ct);
        var done = await EndAsync(cluster, "/models/apply?wait=true", Request(local, "GPU-1"));

        ((int)unsaid.StatusCode).ShouldBe(400);
        (await unsaid.Content.ReadAsStringAsync(Ct)).ShouldContain($"{remote} (gpu-1)");
        done.GetProperty("message").GetString().ShouldBe("completed");
        done.GetProperty("nodes").EnumerateArray().Select(node => (node.GetProperty("node_id").GetString(), node.GetProperty("status").GetString(), node.GetProperty("percentage").GetDouble()))
            .ShouldBe([($"{local}", "success", 100), ($"{remote}", "success", 100)], ignoreOrder: true);
        foreach (var folder in folders)
            (await File.ReadAllBytesAsync(Path.Combine(folder, "w.gguf"), Ct)).ShouldBe(weights.Content);
        var deployments = (await cluster.Host.Client.JsonAsync("/api/deployments")).EnumerateArray().ToArray();
        deployments.Select(one => one.GetProperty("node_id").GetInt32()).ShouldBe([local, remote], ignoreOrder: true);
        deployments.Single(one => one.GetProperty("node_id").GetInt32() == remote).GetProperty("model_name").GetString().ShouldBe(Path.Combine(folders[1], "w.gguf"));

        (await EndAsync(cluster, "/models/delete/tiny?wait=true", null)).GetProperty("message").GetString().ShouldBe("completed");
        folders.ShouldAllBe(folder => !Directory.Exists(folder));
        (await cluster.Host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
    }

    private static async Task<JsonElement> EndAsync(TestCluster cluster, string path, object? body)
    {
        using var answer = await cluster.Host.Client.PostAsJsonAsync(path, body, Ct);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.IsSuccessStatusCode.ShouldBeTrue(text);
        return JsonDocument.Parse(text).RootElement.GetProperty("job");
    }
}
