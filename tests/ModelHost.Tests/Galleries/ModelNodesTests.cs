using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Features.Galleries;
using ModelHost.TestKit;
using ModelHost.Tests.Cluster;

namespace ModelHost.Tests.Galleries;

/// <summary>A model is installed on the nodes that it is asked for, the one in this process and one over the wire alike: on all of them or on none.</summary>
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

    [Fact]
    public async Task A_model_that_one_node_cannot_get_leaves_the_old_one_on_all_and_what_was_downloaded_to_the_next_attempt()
    {
        await using var second = new SecondAnswer();
        await using var server = await FileServer.StartAsync(first: second.AnswerAsync);
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var update = await Update.BeginAsync(cluster, agent, server);
        await update.StagedAsync();
        second.Answer(badly: true);
        var failed = await Deadline.UntilAsync(() => cluster.Host.Client.JsonAsync($"/models/jobs/{update.Uuid}"), job => job.GetProperty("processed").GetBoolean(), 120);

        failed.GetProperty("error").GetString()!.ShouldContain("SHA-256");
        failed.GetProperty("nodes").EnumerateArray().Select(node => node.GetProperty("status").GetString()).ShouldBe(["error", "error"]);
        failed.GetProperty("nodes").EnumerateArray().Count(node => node.GetProperty("error").GetString()!.StartsWith("given up", StringComparison.Ordinal)).ShouldBe(1);
        await update.IsOldAsync();
        await Deadline.UntilAsync(() => !update.Trees.Any(Directory.Exists), what: "what was held to be gone");

        var done = await EndAsync(cluster, "/models/apply?wait=true", update.Request);

        done.GetProperty("message").GetString().ShouldBe("completed");
        await update.IsNewAsync();
        server.Requests.Count(request => request.Path == "/new").ShouldBe(3, "one node had it from before");
    }

    [Fact]
    public async Task A_job_that_is_cancelled_when_one_node_has_all_of_it_leaves_the_old_one_on_all()
    {
        await using var second = new SecondAnswer();
        await using var server = await FileServer.StartAsync(first: second.AnswerAsync);
        await using var cluster = await TestCluster.StartAsync();
        await using var agent = await cluster.AgentAsync();
        var update = await Update.BeginAsync(cluster, agent, server);
        await update.StagedAsync();

        using var cancelled = await cluster.Host.Client.PostAsync($"/models/jobs/{update.Uuid}/cancel", null, Ct);
        cancelled.IsSuccessStatusCode.ShouldBeTrue();
        await Deadline.UntilAsync(() => update.Trees.All(tree => !Directory.Exists(Path.GetDirectoryName(tree))), 60, "what was downloaded to be gone");
        await update.IsOldAsync();
        second.Answer(badly: false);

        (await EndAsync(cluster, "/models/apply?wait=true", update.Request)).GetProperty("message").GetString().ShouldBe("completed");
        await update.IsNewAsync();
    }

    private static async Task<JsonElement> EndAsync(TestCluster cluster, string path, object? body)
    {
        using var answer = await cluster.Host.Client.PostAsJsonAsync(path, body, Ct);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.IsSuccessStatusCode.ShouldBeTrue(text);
        return JsonDocument.Parse(text).RootElement.GetProperty("job");
    }

    /// <summary>Keeps the second answer for <c>/new</c> back, and gives it well or badly.</summary>
    private sealed class SecondAnswer : IAsyncDisposable
    {
        private readonly TaskCompletionSource<bool> _isBad = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private int _answers;

        public void Answer(bool badly) => _isBad.TrySetResult(badly);

        public async Task<bool> AnswerAsync(HttpContext context)
        {
            if (context.Request.Path != "/new" || Interlocked.Increment(ref _answers) != 2 || !await _isBad.Task)
                return false;
            await context.Response.Body.WriteAsync(FileServer.Bytes(1000, seed: 99));
            return true;
        }

        public ValueTask DisposeAsync()
        {
            _isBad.TrySetResult(false);
            return ValueTask.CompletedTask;
        }
    }

    /// <summary>A model that two nodes have, and are to get anew.</summary>
    private sealed class Update
    {
        private readonly TestCluster _cluster;
        private readonly string[] _folders;
        private readonly ServedFile _old, _new;
        private readonly string _deployments;

        private Update(TestCluster cluster, string[] folders, ServedFile before, ServedFile after, string deployments, object request, string uuid) =>
            (_cluster, _folders, _old, _new, _deployments, Request, Uuid) = (cluster, folders, before, after, deployments, request, uuid);

        public object Request { get; }

        public string Uuid { get; }

        /// <summary>What is put together on either node.</summary>
        public string[] Trees => [.. _folders.Select(folder => Path.Combine(Path.GetDirectoryName(folder)!, ".staging", "tiny", "tree"))];

        public static async Task<Update> BeginAsync(TestCluster cluster, NodeAgent agent, FileServer server)
        {
            var (before, after) = (server.Put("/old", FileServer.Bytes(200_000)), server.Put("/new", FileServer.Bytes(300_000, seed: 2)));
            var remote = await cluster.StatusAsync("gpu-1", "online");
            var nodes = (await cluster.Host.Client.JsonAsync("/api/nodes")).EnumerateArray().Select(node => node.GetProperty("id").GetInt32()).ToArray();
            nodes.ShouldContain(remote);
            object Request(string path, ServedFile file) => new
            {
                name = "tiny",
                config_file = new { backend = "simulator" },
                files = new[] { new { filename = "w.gguf", uri = server.Url(path), sha256 = file.Sha256 } },
                nodes,
            };
            (await EndAsync(cluster, "/models/apply?wait=true", Request("/old", before))).GetProperty("message").GetString().ShouldBe("completed");
            using var applied = await cluster.Host.Client.PostAsJsonAsync("/models/apply", Request("/new", after), Ct);
            var uuid = (await applied.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("uuid").GetString()!;
            string[] folders = [.. new[] { cluster.Host.Node.Data, agent.Node.Data }.Select(data => Path.Combine(data, "models", "tiny"))];
            return new Update(cluster, folders, before, after, await DeploymentsAsync(cluster), Request("/new", after), uuid);
        }

        /// <summary>Waits until one node has all of it.</summary>
        public async Task StagedAsync()
        {
            await Deadline.UntilAsync(() => _cluster.Host.Client.JsonAsync($"/models/jobs/{Uuid}"), job => job.TryGetProperty("nodes", out var nodes)
                && nodes.EnumerateArray().Any(node => node.TryGetProperty("phase", out var phase) && phase.GetString() == "committing" && node.GetProperty("percentage").GetDouble() == 100), 120, "a node to have it");
            await Deadline.UntilAsync(() => Trees.Count(tree => File.Exists(Path.Combine(tree, ".modelhost.json"))) == 1, what: "one of them to hold it");
        }

        public async Task IsOldAsync()
        {
            await HasAsync(_old);
            (await DeploymentsAsync(_cluster)).ShouldBe(_deployments);
        }

        public Task IsNewAsync() => HasAsync(_new);

        private async Task HasAsync(ServedFile file)
        {
            foreach (var folder in _folders)
                Convert.ToHexStringLower(SHA256.HashData(await File.ReadAllBytesAsync(Path.Combine(folder, "w.gguf"), Ct))).ShouldBe(file.Sha256, folder);
            (await _cluster.Host.Services.GetRequiredService<ModelBook>().FindAsync("tiny", Ct))!.Files.ShouldContain(file.Sha256);
        }

        private static async Task<string> DeploymentsAsync(TestCluster cluster) =>
            string.Join('\n', (await cluster.Host.Client.JsonAsync("/api/deployments")).EnumerateArray().Select(one => $"{one.GetProperty("id")} {one.GetProperty("node_id")} {one.GetProperty("model_name")}"));
    }
}
