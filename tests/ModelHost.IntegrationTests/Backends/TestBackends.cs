using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Backends;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Routing;
using ModelHost.Gateway;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Backends;

/// <summary>The two backends of others, installed on nodes: <c>node-backend</c> of an old release on grpc-js, <c>python-backend</c> of a new one on grpcio.</summary>
internal static class TestBackends
{
    private static readonly string s_folder = Path.Combine(RealDocker.RepositoryRoot, "tests", "bench", "backends");

    /// <summary>Installs a backend on a node, as a gallery would; skips the calling test where it cannot run.</summary>
    public static async Task InstallAsync(this TestNode node, NodeScripts scripts, string backend)
    {
        await SkipWithoutAsync(scripts, backend);
        var place = Directory.CreateDirectory(Path.Combine(node.Data, "backends"));
        Directory.CreateSymbolicLink(Path.Combine(place.FullName, backend), Path.Combine(s_folder, backend));
    }

    /// <summary>Skips the calling test where a backend cannot run.</summary>
    public static async Task SkipWithoutAsync(NodeScripts scripts, string backend)
    {
        if (backend == "node-backend")
            await scripts.NodeAsync();
        else
        {
            Assert.SkipWhen(!File.Exists("/usr/bin/python3"), "there is no /usr/bin/python3: install the package python3-grpcio");
            var (code, _, _) = await NodeScripts.RunProgramAsync("/usr/bin/python3", ["-c", "import grpc, google.protobuf"], "");
            Assert.SkipWhen(code != 0, "there is no grpcio for /usr/bin/python3: install the packages python3-grpcio and python3-protobuf");
        }
    }

    /// <summary>A request to start a backend.</summary>
    public static JsonObject Request(int node, string backend, string model = "tiny", int port = 8101, JsonObject? engineArgs = null) =>
        Api.StartRequest(node, port, model, backend, request => request["engine_args"] = engineArgs ?? []);

    /// <summary>Starts one and waits until it serves.</summary>
    /// <returns>The deployment's id.</returns>
    public static async Task<int> ServeAsync(this HttpClient client, JsonObject request)
    {
        var id = await client.StartModelAsync(request);
        var ended = await Deadline.UntilAsync(() => client.JsonAsync($"/api/deployments/{id}"),
            found => found.GetProperty("status").GetString() is "running" or "error", 120, $"deployment {id} to run");
        ended.GetProperty("status").GetString().ShouldBe("running", ended.ToString());
        return id;
    }

    /// <summary>The route of a model, as the gateway has it.</summary>
    public static ModelRoute Route(this ControlPlane host, string model = "tiny") =>
        host.Services.GetRequiredService<RouteSource>().Current.Find(model).Route.ShouldNotBeNull();

    /// <summary>Asks the backend of a model, wherever it runs.</summary>
    public static BackendClient Backend(this ControlPlane host, string model = "tiny") => host.Services.GetRequiredService<BackendConnections>().To(host.Route(model));

    /// <summary>Kills the only backend of a node.</summary>
    public static void Kill(string data) => Libc.SignalGroup(TestNode.EnginePid(data), Libc.SigKill);

    /// <summary>What the monitor says of a model.</summary>
    public static Task<JsonElement> MonitorAsync(this HttpClient client, string model = "tiny") => client.JsonAsync($"/backend/monitor?model={model}");

    /// <summary>How often <c>python-backend</c> says that it has loaded a model; waits until it does, for a log is read behind what its engine writes.</summary>
    public static async Task<int> LoadedAsync(this HttpClient client, int id, string model = "tiny") =>
        (await Deadline.UntilAsync(() => client.LogAsync(id), log => log.Contains($"python-backend loaded {model}", StringComparison.Ordinal), what: "the log to tell of the loading")).Split($"python-backend loaded {model}").Length - 1;

    /// <summary>The lines of a deployment's log.</summary>
    public static Task<string> LogAsync(this HttpClient client, int id) => client.GetStringAsync($"/api/deployments/{id}/logs?tail=200");
}
