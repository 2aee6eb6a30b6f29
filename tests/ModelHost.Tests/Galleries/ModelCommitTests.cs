using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Galleries;
using ModelHost.Rpc;
using ModelHost.TestKit;

namespace ModelHost.Tests.Galleries;

/// <summary>What happens when nodes have all of a model and are to put it in its place.</summary>
public sealed class ModelCommitTests : IAsyncLifetime
{
    private readonly TestNode _surroundings = new();
    private FileServer _server = null!;
    private ServedFile _old = null!, _new = null!;
    private SecondNode _second = null!;
    private ControlPlane _host = null!;
    private int _local;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await FileServer.StartAsync();
        (_old, _new) = (_server.Put("/old", FileServer.Bytes(1000)), _server.Put("/new", FileServer.Bytes(2000, seed: 2)));
        _second = await SecondNode.StartAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _host.DisposeAsync();
        await _second.DisposeAsync();
        await _server.DisposeAsync();
        _surroundings.Dispose();
    }

    [Fact]
    public async Task A_control_plane_that_ends_between_two_nodes_sees_it_through_afterwards()
    {
        await InstallAsync();
        // a gallery may say something else by then, or nothing
        PutConfig("/new", _new);
        _second.Refuses = new RpcException(RpcCode.Unavailable, "cut off");
        var uuid = await BeginAsync(new { url = _server.Url("/config.yaml"), name = "tiny", deploy = new { env_vars = new[] { new { key = "VLLM_KEPT", value = "secret" } } }, nodes = new[] { _local, _second.Id } });
        var begun = await Deadline.UntilAsync(() => _host.Client.JsonAsync($"/models/jobs/{uuid}"), job => job.GetProperty("processed").GetBoolean() || job.TryGetProperty("committed", out _), 60);
        begun.GetProperty("processed").GetBoolean().ShouldBeFalse(begun.GetRawText());
        await Deadline.UntilAsync(() => Task.FromResult(Content(_surroundings.Data)), content => content.SequenceEqual(_new.Content), 60, "the first node to have it");
        await Deadline.UntilAsync(() => _second.Commits > 0, 60, "the second node to be told");
        Content(_second.Data).ShouldBe(_old.Content);
        _server.Put("/config.yaml", "gone: true"u8.ToArray());
        await _host.DisposeAsync();

        await StartAsync();
        using var refused = await _host.Client.PostAsync($"/models/jobs/{uuid}/cancel", null, Ct);
        var running = await _host.Client.JsonAsync($"/models/jobs/{uuid}");
        _second.Refuses = null;
        var done = await EndAsync(uuid);

        refused.StatusCode.ShouldBe(HttpStatusCode.Conflict);
        running.GetProperty("processed").GetBoolean().ShouldBeFalse(running.GetRawText());
        (running.GetProperty("processed").GetBoolean(), running.GetProperty("committed").GetBoolean(), running.GetProperty("cancellable").GetBoolean()).ShouldBe((false, true, false));
        done.GetProperty("message").GetString().ShouldBe("completed");
        new[] { Content(_surroundings.Data), Content(_second.Data) }.ShouldAllBe(content => content.SequenceEqual(_new.Content));
        (await RecordAsync()).Files.ShouldContain(_new.Sha256);
        var deployments = (await _host.Client.JsonAsync("/api/deployments")).EnumerateArray().ToArray();
        deployments.Select(one => one.GetProperty("node_id").GetInt32()).ShouldBe([_local, _second.Id], ignoreOrder: true);
        deployments.ShouldAllBe(one => one.GetProperty("env_vars")[0].GetProperty("key").GetString() == "VLLM_KEPT");
        _server.Requests.Count(request => request.Path == "/new").ShouldBe(2);
    }

    [Fact]
    public async Task A_node_that_cannot_be_told_in_time_keeps_the_old_one_and_the_job_says_so()
    {
        await InstallAsync("Galleries:CommitPatience=00:00:20");
        _second.Refuses = new RpcException(RpcCode.Unavailable, "cut off");
        var before = await RecordAsync();

        var failed = await EndAsync(await BeginAsync(Request("/new", _new)));

        failed.GetProperty("error").GetString()!.ShouldStartWith($"tiny is installed on {Dns.GetHostName()}, and could not be put in its place on the others, which keep what they had; have it installed there again. second: ");
        failed.GetProperty("nodes").EnumerateArray().Select(node => node.GetProperty("status").GetString()).ShouldBe(["success", "error"]);
        _second.Commits.ShouldBeGreaterThan(1);
        Content(_surroundings.Data).ShouldBe(_new.Content);
        Content(_second.Data).ShouldBe(_old.Content);
        var after = await RecordAsync();
        after.Files.ShouldContain(_new.Sha256);
        Places(after).Select(place => place.NodeId).ShouldBe([_local, _second.Id], ignoreOrder: true);
        Places(after).Single(place => place.NodeId == _second.Id).ShouldBe(Places(before).Single(place => place.NodeId == _second.Id));
        await Deadline.UntilAsync(() => !Directory.Exists(Path.Combine(_second.Data, "models/.staging/tiny/tree")), what: "it to be held for nobody any more");

        _second.Refuses = null;
        (await EndAsync(await BeginAsync(Request("/new", _new)))).GetProperty("message").GetString().ShouldBe("completed");
        Content(_second.Data).ShouldBe(_new.Content);
        _server.Requests.Count(request => request.Path == "/new").ShouldBe(2, "what it had downloaded was kept");
    }

    [Fact]
    public async Task A_node_that_holds_nothing_has_done_it_when_it_is_done()
    {
        await InstallAsync();
        (_second.IsOld, _second.Refuses) = (true, new RpcException(RpcCode.Unimplemented, "no such method"));

        (await EndAsync(await BeginAsync(Request("/new", _new)))).GetProperty("message").GetString().ShouldBe("completed");

        new[] { Content(_surroundings.Data), Content(_second.Data) }.ShouldAllBe(content => content.SequenceEqual(_new.Content));
        _second.Commits.ShouldBe(0);
    }

    [Fact]
    public async Task What_a_gallery_has_changed_while_a_job_was_interrupted_is_got_anew()
    {
        await InstallAsync();
        var last = _server.Put("/last", FileServer.Bytes(3000, seed: 3));
        _new.HoldAfter = 1000;
        PutConfig("/new", _new);
        var uuid = await BeginAsync(new { url = _server.Url("/config.yaml"), name = "tiny", nodes = new[] { _local, _second.Id } });
        await Deadline.UntilAsync(() => _server.Requests.Count(request => request.Path == "/new") == 2, 60, "both nodes to be at it");
        await _host.DisposeAsync();
        PutConfig("/last", last);

        await StartAsync();
        _new.Release();
        var done = await EndAsync(uuid);

        done.GetProperty("message").GetString().ShouldBe("completed");
        (await RecordAsync()).Files.ShouldContain(last.Sha256);
        new[] { Content(_surroundings.Data), Content(_second.Data) }.ShouldAllBe(content => content.SequenceEqual(last.Content));
    }

    [Fact]
    public async Task What_a_node_has_dropped_while_a_job_was_interrupted_is_got_anew()
    {
        await InstallAsync();
        _new.HoldAfter = 1000;
        PutConfig("/new", _new);
        var uuid = await BeginAsync(new { url = _server.Url("/config.yaml"), name = "tiny", nodes = new[] { _local, _second.Id } });
        await Deadline.UntilAsync(() => _server.Requests.Count(request => request.Path == "/new") == 2, 60, "both nodes to be at it");
        await _host.DisposeAsync();
        // as the node writes it when it has held the whole of it for as long as it does
        var path = Directory.GetFiles(Path.Combine(_surroundings.Data, "pulls")).Single(file => !File.ReadAllText(file).Contains("PULL_PHASE_DONE", StringComparison.Ordinal));
        var record = JsonNode.Parse(await File.ReadAllTextAsync(path, Ct))!;
        var state = JsonNode.Parse(record["state"]!.GetValue<string>())!;
        (state["phase"], state["errorCode"], state["error"], state["endedAt"]) = ("PULL_PHASE_FAILED", "hold_expired", "nobody has asked for it", DateTimeOffset.UtcNow.ToUnixTimeSeconds());
        record["state"] = state.ToJsonString();
        await File.WriteAllTextAsync(path, record.ToJsonString(), Ct);

        await StartAsync();
        _new.Release();
        var done = await EndAsync(uuid);

        done.GetProperty("message").GetString().ShouldBe("completed", done.GetRawText());
        new[] { Content(_surroundings.Data), Content(_second.Data) }.ShouldAllBe(content => content.SequenceEqual(_new.Content));
    }

    [Fact]
    public async Task A_deployment_that_one_node_cannot_have_leaves_a_record_that_is_true_of_the_others()
    {
        await InstallAsync();
        var before = await RecordAsync();
        var port = await TakePortAsync(_second.Id);

        var failed = await EndAsync(await BeginAsync(Request("/new", _new, new { port })));

        failed.GetProperty("error").GetString()!.ShouldContain($"port {port}", Case.Insensitive);
        var after = await RecordAsync();
        after.Files.ShouldContain(_new.Sha256);
        Places(after).Select(place => place.NodeId).ShouldBe([_local, _second.Id], ignoreOrder: true);
        Places(after).Single(place => place.NodeId == _second.Id).ShouldBe(Places(before).Single(place => place.NodeId == _second.Id));
        var deployments = (await _host.Client.JsonAsync("/api/deployments")).EnumerateArray().Select(one => one.GetProperty("id").GetInt32()).ToArray();
        Places(after).ShouldAllBe(place => deployments.Contains(place.DeploymentId));
    }

    private async Task StartAsync(params string[] configuration)
    {
        _host = await ControlPlane.StartAsync(_surroundings, configuration: configuration);
        await _second.LinkAsync(_host);
        _local = await Deadline.UntilAsync(async () => (await _host.Client.JsonAsync("/api/nodes")).EnumerateArray().Select(node => node.GetProperty("id").GetInt32()).FirstOrDefault(id => id != _second.Id), id => id != 0);
    }

    private async Task InstallAsync(params string[] configuration)
    {
        await StartAsync(configuration);
        (await EndAsync(await BeginAsync(Request("/old", _old)))).GetProperty("message").GetString().ShouldBe("completed");
        _second.Commits = 0;
    }

    private void PutConfig(string path, ServedFile file) => _server.Put(
        "/config.yaml", System.Text.Encoding.UTF8.GetBytes($"name: tiny\nconfig_file: |\n  backend: simulator\nfiles:\n- {{filename: w.gguf, uri: '{_server.Url(path)}', sha256: {file.Sha256}}}\n"));

    /// <summary>Has a deployment of somebody's hold a port of a node.</summary>
    private async Task<int> TakePortAsync(int node)
    {
        await using var db = await _host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        var spec = new LaunchSpec { ModelName = "demo/other", Owner = "somebody", Port = 8123 };
        db.Deployments.Add(new Deployment { Uid = Guid.NewGuid().ToString(), NodeId = node, Spec = spec.ToJson(), RunId = Guid.NewGuid().ToString("N"), ReservedPort = spec.Port });
        await db.SaveChangesAsync(Ct);
        return spec.Port;
    }

    private object Request(string path, ServedFile file, object? deploy = null) => new
    {
        name = "tiny",
        deploy,
        config_file = new { backend = "simulator" },
        files = new[] { new { filename = "w.gguf", uri = _server.Url(path), sha256 = file.Sha256 } },
        nodes = new[] { _local, _second.Id },
    };

    private async Task<string> BeginAsync(object request)
    {
        using var applied = await _host.Client.PostAsJsonAsync("/models/apply", request, Ct);
        var text = await applied.Content.ReadAsStringAsync(Ct);
        applied.IsSuccessStatusCode.ShouldBeTrue(text);
        return JsonDocument.Parse(text).RootElement.GetProperty("uuid").GetString()!;
    }

    private Task<JsonElement> EndAsync(string uuid) => Deadline.UntilAsync(() => _host.Client.JsonAsync($"/models/jobs/{uuid}"), job => job.GetProperty("processed").GetBoolean(), 120);

    private async Task<InstalledModel> RecordAsync() => (await _host.Services.GetRequiredService<ModelBook>().FindAsync("tiny", Ct))!;

    private static InstalledNode[] Places(InstalledModel model) => GalleryJson.Read<InstalledNode[]>(model.Nodes);

    /// <summary>What a node has; nothing for the moment in which one takes the place of the other, on a disk that cannot exchange them.</summary>
    private static byte[] Content(string data) => FolderText.Bytes(Path.Combine(data, "models/tiny/w.gguf"));
}
