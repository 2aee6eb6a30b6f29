using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>A control plane with its local node and the agent of another, each a process, which both have a model.</summary>
internal sealed class NodePair : IAsyncDisposable
{
    private const string Name = "gpu-1";
    private readonly TestNode _remote = new();
    private readonly int _clusterPort = TestPorts.Free(), _agentPort = TestPorts.Free();
    private readonly FileServer _server;
    private int[] _nodes = [];

    private NodePair(FileServer server) => (_server, Old, New) = (server, server.Put("/old", FileServer.Bytes(100_000)), server.Put("/new", FileServer.Bytes(4_000_000, seed: 2)));

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public TestNode Local { get; } = new();

    public ModelHostProcess Host { get; private set; } = null!;

    public ModelHostProcess Agent { get; private set; } = null!;

    public HttpClient Client { get; private set; } = null!;

    /// <summary>What they have first.</summary>
    public ServedFile Old { get; }

    /// <summary>What they are to have.</summary>
    public ServedFile New { get; }

    /// <summary>Where they have it.</summary>
    public string[] Folders => [.. new[] { Local, _remote }.Select(node => Path.Combine(node.Data, "models", "tiny"))];

    public static async Task<NodePair> StartAsync()
    {
        var pair = new NodePair(await FileServer.StartAsync());
        await pair.ServeAsync();
        using var made = await pair.Client.PostAsJsonAsync("/api/nodes/join-tokens", new { node_name = Name, ttl_minutes = 60 }, Ct);
        var token = (await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("token").GetString()!;
        pair.Agent = ModelHostProcess.Start(["node", "--data", pair._remote.Data, "--name", Name, "--listen", $"127.0.0.1:{pair._agentPort}", "--join", $"127.0.0.1:{pair._clusterPort}", "--token", token,
            .. pair._remote.Configuration.Where(setting => !setting.StartsWith("Releases:", StringComparison.Ordinal))]);
        await pair.Agent.ListeningAsync();
        var nodes = await Deadline.UntilAsync(() => pair.Client.JsonAsync("/api/nodes"), found => found.GetArrayLength() == 2 && found.EnumerateArray().All(node => node.GetProperty("status").GetString() == "online"), 60);
        pair._nodes = [.. nodes.EnumerateArray().Select(node => node.GetProperty("id").GetInt32())];
        var uuid = await pair.ApplyAsync(pair.Old, "/old");
        (await Deadline.UntilAsync(() => pair.JobAsync(uuid), job => job.GetProperty("processed").GetBoolean(), 60)).GetProperty("message").GetString().ShouldBe("completed");
        return pair;
    }

    /// <summary>Starts the control plane, again if it was there before.</summary>
    public async Task ServeAsync()
    {
        if (Host is not null)
            await Host.DisposeAsync();
        Client?.Dispose();
        Host = await ModelHostProcess.ServeAsync(Local, 0, $"Cluster:Listen=127.0.0.1:{_clusterPort}");
        Client = new HttpClient { BaseAddress = Host.Url };
    }

    /// <summary>Asks for the model with a file of the server.</summary>
    /// <returns>The job.</returns>
    public async Task<string> ApplyAsync(ServedFile file, string path)
    {
        using var applied = await Client.PostAsJsonAsync("/models/apply", new
        {
            name = "tiny",
            config_file = new { backend = "simulator" },
            files = new[] { new { filename = "w.gguf", uri = _server.Url(path), sha256 = file.Sha256 } },
            nodes = _nodes,
        }, Ct);
        var text = await applied.Content.ReadAsStringAsync(Ct);
        applied.IsSuccessStatusCode.ShouldBeTrue(text);
        return JsonDocument.Parse(text).RootElement.GetProperty("uuid").GetString()!;
    }

    public Task<JsonElement> JobAsync(string uuid) => Client.JsonAsync($"/models/jobs/{uuid}");

    /// <summary>Waits until some of a file has come to both.</summary>
    public async Task PullingAsync(string uuid, string path, long bytes)
    {
        await Deadline.UntilAsync(() => _server.Requests.Count(request => request.Path == path) >= 2, 60, "both to be at it");
        await Deadline.UntilAsync(() => JobAsync(uuid), job => job.TryGetProperty("current_bytes", out var come) && come.GetInt64() >= bytes, 60, "some of it to have come");
    }

    /// <summary>Checks what both have.</summary>
    public void Has(ServedFile file)
    {
        foreach (var folder in Folders)
            File.ReadAllBytes(Path.Combine(folder, "w.gguf")).AsSpan().SequenceEqual(file.Content).ShouldBeTrue(folder);
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await Host.DisposeAsync();
        if (Agent is not null)
            await Agent.DisposeAsync();
        await _server.DisposeAsync();
        Local.Dispose();
        _remote.Dispose();
    }
}
