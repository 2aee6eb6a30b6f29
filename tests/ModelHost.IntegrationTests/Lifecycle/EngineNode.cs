using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Agent.Runtimes;
using ModelHost.Docker;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>A node on the real Docker engine, and what a test looks at behind the control plane's back. Its containers go with it.</summary>
internal sealed class EngineNode : IAsyncDisposable
{
    private static int s_model;

    private EngineNode(RealDocker docker, int gpus)
    {
        Engine = docker;
        Surroundings = new TestNode(docker, gpus);
        Client = new DockerClient(docker.Endpoint);
    }

    /// <summary>The engine.</summary>
    public RealDocker Engine { get; }

    /// <summary>Data folder, ports and GPUs.</summary>
    public TestNode Surroundings { get; }

    /// <summary>A client of the engine.</summary>
    public DockerClient Client { get; }

    /// <summary>The node on an engine that has the simulator's image.</summary>
    public static Task<EngineNode> MakeAsync(RealDockerFixture fixture, int gpus = 0) => MakeAsync(fixture.Docker, gpus);

    /// <summary>The node on an engine, which gets the simulator's image.</summary>
    public static async Task<EngineNode> MakeAsync(RealDocker engine, int gpus = 0)
    {
        await engine.NeedSimulatorAsync();
        return new EngineNode(engine, gpus);
    }

    /// <summary>A model name that no other test has: image and log tell whose it is.</summary>
    public static string NewModel() => $"demo/model-{Interlocked.Increment(ref s_model)}";

    /// <summary>A request for the simulator as a container, quick to load, on this node's GPUs.</summary>
    public JsonObject Request(int nodeId, string model, int port = 8101, Action<JsonObject>? change = null, params (string Key, string Value)[] variables) =>
        Api.StartRequest(nodeId, port, model, "vllm", request =>
        {
            request["vllm_version"] = "0.28.0";
            (string, string)[] all = Surroundings.GpuFolder.Length > 0 ? [("VLLM_SIM_GPU_DIR", Surroundings.GpuFolder), .. variables] : variables;
            request["env_vars"] = new JsonArray([.. all.Select(v => new JsonObject { ["key"] = v.Item1, ["value"] = v.Item2 })]);
            change?.Invoke(request);
        });

    /// <summary>Ids of the containers of this node, in every state.</summary>
    public async Task<IReadOnlyList<string>> ContainersAsync()
    {
        var labels = new Dictionary<string, string?> { ["modelhost.cluster"] = ClusterId };
        return [.. (await Client.ListContainersAsync(labels, CancellationToken.None)).Select(container => container.Id)];
    }

    /// <summary>The one container of this node.</summary>
    public async Task<ContainerDetails> ContainerAsync() =>
        await Client.InspectContainerAsync((await ContainersAsync()).ShouldHaveSingleItem(), CancellationToken.None);

    public async ValueTask DisposeAsync()
    {
        foreach (var id in await ContainersAsync())
        {
            try
            {
                await Client.RemoveContainerAsync(id, force: true, CancellationToken.None);
            }
            catch (DockerException e) when (e.StatusCode is System.Net.HttpStatusCode.NotFound or System.Net.HttpStatusCode.Conflict)
            {
                // gone, or going
            }
        }
        Client.Dispose();
        foreach (var pid in Processes())
            Kill(pid);
        Surroundings.Dispose();
    }

    /// <summary>Process numbers of the engines of this node that run as processes.</summary>
    public IReadOnlyList<int> Processes()
    {
        var folder = Path.Combine(Surroundings.Data, "engines");
        // one that is removed at this moment is none any more
        return !Directory.Exists(folder) ? [] : [.. Directory.GetFiles(folder, "*.json").Select(ProcessSidecar.Read).Select(sidecar => sidecar?.Pid).OfType<int>()];
    }

    /// <summary>Ends a process without asking it.</summary>
    public static void Kill(int pid)
    {
        try
        {
            using var process = System.Diagnostics.Process.GetProcessById(pid);
            process.Kill();
        }
        catch (ArgumentException)
        {
            // it has ended
        }
    }

    private string ClusterId => File.Exists(Path.Combine(Surroundings.Data, "cluster-id"))
        ? File.ReadAllText(Path.Combine(Surroundings.Data, "cluster-id")).Trim() : "none";
}

/// <summary>What a client of the API sees, in the words of these tests.</summary>
internal static class ApiExtensions
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Starts a model and waits until it runs.</summary>
    public static async Task<int> RunModelAsync(this HttpClient client, JsonObject request)
    {
        var id = await client.StartModelAsync(request);
        await client.ReachAsync(id, "running");
        return id;
    }

    /// <summary>Waits for a status; fails at once, with the cause, when the run failed instead.</summary>
    public static async Task<JsonElement> ReachAsync(this HttpClient client, int id, string status, double seconds = 180)
    {
        var reached = await Deadline.UntilAsync(
            () => client.JsonAsync($"/api/deployments/{id}"), d => d.Status() == status || d.Status() == "error", seconds, $"deployment {id} to be {status}");
        reached.Status().ShouldBe(status, reached.ToString());
        return reached;
    }

    /// <summary>The status of a deployment.</summary>
    public static string Status(this JsonElement deployment) => deployment.GetProperty("status").GetString()!;

    /// <summary>A string of an object; empty for null.</summary>
    public static string Text(this JsonElement element, string property) => element.GetProperty(property).GetString() ?? "";

    /// <summary>The body of a refusal of a start.</summary>
    public static async Task<(int Status, string Code, string Detail)> RefusedStartAsync(this HttpClient client, JsonObject request)
    {
        using var answer = await client.PostAsJsonAsync("/api/deployments/start", request, Ct);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        answer.IsSuccessStatusCode.ShouldBeFalse(body.ToString());
        return ((int)answer.StatusCode, body.Text("code"), body.Text("detail"));
    }

    /// <summary>A chat that must be answered.</summary>
    public static async Task<JsonElement> ChatAsync(this HttpClient client, string model, int maxTokens = 5)
    {
        using var answer = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(model, maxTokens: maxTokens), Ct);
        var body = await answer.Content.ReadAsStringAsync(Ct);
        answer.IsSuccessStatusCode.ShouldBeTrue(body);
        return JsonSerializer.Deserialize<JsonElement>(body);
    }

    /// <summary>The lines of a deployment's log.</summary>
    public static async Task<string[]> LogAsync(this HttpClient client, int id, int tail = 2000) =>
        [.. (await client.JsonAsync($"/api/deployments/{id}/logs?tail={tail}")).GetProperty("lines").EnumerateArray().Select(line => line.GetString()!)];
}
