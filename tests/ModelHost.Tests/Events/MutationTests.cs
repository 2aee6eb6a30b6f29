using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Cluster;
using ModelHost.Features.Events;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Events;

/// <summary>Whoever hangs on the change feed hears of everything that is stored through the API.</summary>
public sealed class MutationTests
{
    // they store nothing
    private static readonly string[] ReadOnly = ["POST /api/deployments/plan"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Every_route_that_changes_something_publishes_what_it_changed_and_a_refusal_publishes_nothing()
    {
        // without a node that is looked at: what it does would be told in between
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var node = await QuietNode.AddAsync(host);
        var walk = new Walk(host);
        JsonObject Start(int port) => Api.StartRequest(node.Id, port, $"org/m-{port}", change: request => request["duration_seconds"] = 3600);

        var record = await walk.ShouldTellAsync("POST", "/api/deployments/", Start(8101), ChangeKind.Deployments);
        var id = (await walk.ShouldTellAsync("POST", "/api/deployments/start", Start(8102), ChangeKind.Deployments)).Id();
        await walk.ShouldTellAsync("POST", $"/api/deployments/{id}/extend", new() { ["hours"] = 1 }, ChangeKind.Deployments, id);
        await walk.ShouldTellAsync("POST", $"/api/deployments/{id}/pin", new() { ["pinned"] = true }, ChangeKind.Deployments, id);
        await walk.ShouldTellAsync("POST", $"/api/deployments/{id}/start-on-demand", new() { ["start_on_demand"] = true }, ChangeKind.Deployments, id);
        await walk.ShouldTellAsync("POST", $"/api/deployments/stop/{id}", [], ChangeKind.Deployments, id);
        await walk.ShouldTellAsync("POST", $"/api/deployments/{record.Id()}/restart", new() { ["owner"] = "tests" }, ChangeKind.Deployments, record.Id());
        var manifest = JsonNode.Parse(await host.Client.GetStringAsync(new Uri($"/api/deployments/{id}/manifest", UriKind.Relative), Ct))!;
        manifest["model"] = "org/m-8103";
        await walk.ShouldTellAsync("POST", "/api/deployments/from-manifest",
            new() { ["manifest"] = manifest, ["node_id"] = node.Id, ["port"] = 8103, ["owner"] = "tests" }, ChangeKind.Deployments);
        await walk.ShouldTellAsync("DELETE", $"/api/deployments/{id}", null, ChangeKind.Deployments, id);
        var config = (await walk.ShouldTellAsync("POST", "/api/configs/", new() { ["name"] = "a", ["payload"] = new JsonObject() }, ChangeKind.Configs)).Id();
        await walk.ShouldTellAsync("PUT", $"/api/configs/{config}", new() { ["name"] = "b", ["payload"] = new JsonObject() }, ChangeKind.Configs);
        await walk.ShouldTellAsync("DELETE", $"/api/configs/{config}", null, ChangeKind.Configs);
        var key = (await walk.ShouldTellAsync("POST", "/api/api-keys", new() { ["label"] = "a" }, ChangeKind.ApiKeys)).Id();
        await walk.ShouldTellAsync("PATCH", $"/api/api-keys/{key}", new() { ["label"] = "b" }, ChangeKind.ApiKeys);
        await walk.ShouldNotTellAsync("DELETE", $"/api/api-keys/{key}", null);
        await walk.ShouldTellAsync("DELETE", $"/api/api-keys/{key}?acknowledge_open_gateway=true", null, ChangeKind.ApiKeys);
        var token = (await walk.ShouldTellAsync("POST", "/api/nodes/join-tokens", [], ChangeKind.JoinTokens)).Id();
        await walk.ShouldTellAsync("DELETE", $"/api/nodes/join-tokens/{token}", null, ChangeKind.JoinTokens);
        await walk.ShouldNotTellAsync("DELETE", $"/api/nodes/join-tokens/{token}", null);
        await walk.ShouldNotTellAsync("DELETE", "/api/nodes/987", null);
        var byHand = (await walk.ShouldTellAsync("POST", "/api/nodes", new() { ["hostname"] = "gpu-7", ["ip_address"] = "10.0.0.7" }, ChangeKind.Nodes)).Id();
        await walk.ShouldTellAsync("PATCH", $"/api/nodes/{byHand}", new() { ["port"] = 9001 }, ChangeKind.Nodes);
        await walk.ShouldTellAsync("POST", $"/api/nodes/{byHand}/runtime", new() { ["runtime"] = "podman" }, ChangeKind.Nodes);
        await walk.ShouldTellAsync("POST", $"/api/nodes/{byHand}/warm-cache", new() { ["enabled"] = true }, ChangeKind.Nodes);
        await walk.ShouldTellAsync("POST", $"/api/nodes/{byHand}/maintenance", new() { ["enabled"] = true }, ChangeKind.Nodes);
        var revoked = Guid.NewGuid().ToString("N");
        await host.Services.GetRequiredService<ClusterService>().RevokeAsync(revoked, "gpu-8", Ct);
        await walk.ShouldTellAsync("POST", $"/api/nodes/discovered/{revoked}/admit", null, ChangeKind.Nodes);
        await walk.ShouldNotTellAsync("POST", $"/api/nodes/discovered/{revoked}/admit", null);
        await walk.ShouldNotTellAsync("PATCH", $"/api/nodes/{node.Id}", new() { ["port"] = 9001 });
        await walk.ShouldNotTellAsync("POST", $"/api/nodes/{byHand}/maintenance", new() { ["enabled"] = true, ["gpu_ids"] = new JsonArray(0) });
        await walk.ShouldTellAsync("POST", $"/api/nodes/{node.Id}/backends/install", new() { ["backend"] = "none" }, ChangeKind.Jobs);
        await walk.ShouldTellAsync("POST", $"/api/nodes/{node.Id}/backends/upgrade", new() { ["backend"] = "none" }, ChangeKind.Jobs);
        node.Has.Artifacts.Add(new Artifact { Kind = ArtifactKind.Backend, Name = "some", PullId = "1" });
        await walk.ShouldTellAsync("POST", $"/api/nodes/{node.Id}/backends/delete", new() { ["backend"] = "some" }, ChangeKind.Jobs);
        await walk.ShouldTellAsync("PUT", "/api/settings/", new() { ["default_port"] = 9001 }, ChangeKind.Settings);
        await walk.ShouldTellAsync("POST", "/api/admin/purge", new() { ["targets"] = new JsonArray("configs") }, ChangeKind.Configs);
        await walk.ShouldTellAsync("POST", "/api/admin/purge", new() { ["targets"] = new JsonArray("metrics") }, ChangeKind.Nodes);
        await walk.ShouldTellAsync("POST", "/api/admin/purge", new() { ["targets"] = new JsonArray("deployments") }, ChangeKind.Deployments);
        var elsewhere = await host.Services.GetRequiredService<NodeService>().EnsureAsync(
            new NodeSeen("another", "another", System.Net.IPAddress.Loopback, TestPorts.Free()), isProved: false, Ct);
        await walk.ShouldTellAsync("DELETE", $"/api/nodes/{elsewhere}", null, ChangeKind.Nodes);
        await walk.ShouldNotTellAsync("POST", "/api/deployments/start", Start(80));
        await walk.ShouldNotTellAsync("POST", "/api/deployments/987/pin", new() { ["pinned"] = true });
        await walk.ShouldNotTellAsync("DELETE", "/api/deployments/987", null);
        await walk.ShouldNotTellAsync("DELETE", "/api/configs/987", null);
        await walk.ShouldNotTellAsync("PUT", "/api/settings/", new() { ["default_port"] = 1 });
        await walk.ShouldNotTellAsync("POST", "/api/admin/purge", new() { ["targets"] = new JsonArray("nonsense") });

        var routes = host.Services.GetServices<EndpointDataSource>().SelectMany(source => source.Endpoints).OfType<RouteEndpoint>()
            .SelectMany(endpoint => (endpoint.Metadata.GetMetadata<HttpMethodMetadata>()?.HttpMethods ?? []).Select(method => (Method: method, Pattern: "/" + endpoint.RoutePattern.RawText!.Trim('/'))))
            .Where(route => route.Method is "POST" or "PUT" or "PATCH" or "DELETE" && route.Pattern.StartsWith("/api/", StringComparison.Ordinal))
            .Select(route => $"{route.Method} {route.Pattern}").Distinct().ToArray();
        routes.Length.ShouldBeGreaterThan(10);
        routes.Except(ReadOnly).Except(walk.Told).ShouldBeEmpty("each route that changes something is walked above");
    }

    private sealed class Walk(ControlPlane host)
    {
        private readonly ChangeFeed _feed = host.Services.GetRequiredService<ChangeFeed>();

        /// <summary>Routes that told of their change, as <c>METHOD pattern</c>.</summary>
        public HashSet<string> Told { get; } = [];

        public async Task<JsonElement> ShouldTellAsync(string method, string path, JsonObject? body, ChangeKind kind, int? id = null)
        {
            var (answer, heard) = await SendAsync(method, path, body);
            answer.IsSuccessStatusCode.ShouldBeTrue(await answer.Content.ReadAsStringAsync(Ct));
            heard.ShouldContain(change => change.Kind == kind && (id == null || change.Ids!.Contains(id.Value)), $"{method} {path}");
            Told.Add($"{method} /{string.Join('/', path.Split('?')[0].Trim('/').Split('/').Select(part => int.TryParse(part, out _) ? "{id:int}" : part.Length == 32 ? "{uid}" : part))}");
            return answer.StatusCode == HttpStatusCode.NoContent ? default : await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        }

        public async Task ShouldNotTellAsync(string method, string path, JsonObject? body)
        {
            var (answer, heard) = await SendAsync(method, path, body);
            answer.IsSuccessStatusCode.ShouldBeFalse();
            heard.Where(change => change.Kind != ChangeKind.Jobs).ShouldBeEmpty($"{method} {path}"); // jobs go on by themselves
        }

        /// <summary>What was published until the answer was there: nobody has to wait for it longer than the client.</summary>
        private async Task<(HttpResponseMessage Answer, List<Change> Heard)> SendAsync(string method, string path, JsonObject? body)
        {
            var changes = _feed.Subscribe(64);
            using var request = new HttpRequestMessage(new HttpMethod(method), path) { Content = body is null ? null : JsonContent.Create(body) };
            var answer = await host.Client.SendAsync(request, Ct);
            changes.Dispose();
            return (answer, await changes.ReadAllAsync(Ct).ToListAsync(Ct));
        }
    }
}
