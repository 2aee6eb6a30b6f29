using System.Net;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Requests that are sent again with their key.</summary>
public sealed class IdempotencyTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("/start")]
    [InlineData("/from-manifest")]
    [InlineData("/")]
    public async Task A_request_sent_again_has_the_deployment_of_the_first(string route)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);

        var first = await host.Client.PostedAsync(route, Body(route, node.Id), "key-1");
        var again = await host.Client.PostedAsync(route + (route == "/" ? "" : "/"), Body(route, node.Id), "key-1");
        node.FallsSilent();
        var silent = await host.Client.PostedAsync(route, Body(route, node.Id), "key-1");

        again.Id().ShouldBe(first.Id());
        silent.Id().ShouldBe(first.Id());
        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task A_restart_sent_again_starts_no_second_run()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        await node.SetAsync(id, DeploymentStatus.Stopped);
        var body = new JsonObject { ["owner"] = "tests" };

        await host.Client.PostedAsync($"/{id}/restart", body, "key-1");
        var run = (await node.RowAsync(id)).RunId;
        await host.Client.PostedAsync($"/{id}/restart", body, "key-1");

        (await node.RowAsync(id)).RunId.ShouldBe(run);
        await host.Client.PostAsync($"/{id}/restart", body, "key-2").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.wrong_status");
    }

    [Fact]
    public async Task The_same_key_with_another_body_is_a_conflict_and_blanks_make_no_other_body()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var first = await host.Client.PostedAsync("/start", Api.StartRequest(node.Id), "key-1");

        using var spaced = new HttpRequestMessage(HttpMethod.Post, "/api/deployments/start")
        {
            Content = new StringContent(Api.StartRequest(node.Id).ToJsonString(new JsonSerializerOptions { WriteIndented = true }), Encoding.UTF8, "application/json"),
            Headers = { { "Idempotency-Key", "key-1" } },
        };
        using var again = await host.Client.SendAsync(spaced, Ct);

        JsonDocument.Parse(await again.Content.ReadAsStringAsync(Ct)).RootElement.Id().ShouldBe(first.Id());
        await host.Client.PostAsync("/start", Api.StartRequest(node.Id, 8102), "key-1").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "idempotency.key_reused");
        await host.Client.PostAsync("/start", Api.StartRequest(node.Id, change: r => r["env_vars"] = new JsonArray(new JsonObject { ["key"] = "HF_TOKEN", ["value"] = "x" })), "key-1")
            .ShouldBeRefusedAsync(HttpStatusCode.Conflict, "idempotency.key_reused");
        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task A_key_counts_for_one_credential_and_one_route()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        await host.Client.PostedAsync("/start", Api.StartRequest(node.Id), "key-1");

        // were the key the same one, the first would be answered
        await host.Client.PostAsync("/start", Api.StartRequest(node.Id), "key-1", host.AdminKey).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.port_taken");
        await host.Client.PostAsync("/", Api.StartRequest(node.Id), "key-1").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.port_taken");
        await host.Client.PostAsync("/start", Api.StartRequest(node.Id)).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.port_taken");
    }

    [Fact]
    public async Task A_key_of_a_refused_request_is_free()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        var request = Api.StartRequest(node.Id, 8101, "demo/other");

        await host.Client.PostAsync("/start", request, "key-1").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.port_taken");
        await node.SetAsync(id, DeploymentStatus.Stopped);

        (await host.Client.PostedAsync("/start", request, "key-1")).Id().ShouldNotBe(id);
    }

    [Fact]
    public async Task A_key_counts_for_24_hours_and_its_deployment_may_be_deleted_before()
    {
        var time = new ShiftedTime();
        await using var host = await ControlPlane.StartAsync(configure: services => services.AddSingleton<TimeProvider>(time));
        var node = await QuietNode.AddAsync(host);
        var first = await host.Client.PostedAsync("/start", Api.StartRequest(node.Id), "key-1");
        using (await host.Client.DeleteAsync(new Uri($"/api/deployments/{first.Id()}", UriKind.Relative), Ct))
            await host.Client.PostAsync("/start", Api.StartRequest(node.Id), "key-1").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "idempotency.key_spent");

        time.Ahead = TimeSpan.FromHours(23.9);
        await host.Client.PostAsync("/start", Api.StartRequest(node.Id), "key-1").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "idempotency.key_spent");
        time.Ahead = TimeSpan.FromHours(24.1);
        var later = await host.Client.PostedAsync("/start", Api.StartRequest(node.Id), "key-1");

        later.Id().ShouldNotBe(first.Id());
        (await KeysAsync(host)).ShouldBe(1);
    }

    [Fact]
    public async Task Of_many_at_once_with_one_key_one_row_is_made()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        for (var round = 0; round < 10; round++)
        {
            var ids = await Task.WhenAll(Enumerable.Range(0, 8).Select(async _ => (await host.Client.PostedAsync("/start", Api.StartRequest(node.Id, 8101 + round, $"demo/model-{round}"), $"key-{round}")).Id()));

            ids.Distinct().ShouldHaveSingleItem();
        }

        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(10);
        (await KeysAsync(host)).ShouldBe(10);
    }

    [Theory]
    [InlineData("", false)]
    [InlineData("with blank", false)]
    [InlineData("ümlaut", false)]
    [InlineData("LONG", false)]
    [InlineData("FULL", true)]
    [InlineData("8e03978e-40d5-43e8-bc93-6894a57f9324", true)]
    [InlineData("\"quoted\",and;more", true)]
    public async Task A_key_is_1_to_255_printable_characters(string key, bool passes)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        key = key switch { "LONG" => new string('k', 256), "FULL" => new string('k', 255), _ => key };

        if (passes)
            await host.Client.PostedAsync("/start", Api.StartRequest(node.Id), key);
        else
        {
            using var client = RawClient(host);
            await client.PostAsync("/start", Api.StartRequest(node.Id), key).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", "Idempotency-Key");
            (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
        }
    }

    [Fact]
    public async Task A_body_that_is_no_text_is_refused_beside_a_key()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        using var request = new HttpRequestMessage(HttpMethod.Post, "/api/deployments/start")
        {
            Content = new StringContent(Api.StartRequest(node.Id, change: r => r["engine_args"] = new JsonObject { ["a"] = "VALUE" }).ToJsonString().Replace("VALUE", "\\ud800", StringComparison.Ordinal), Encoding.UTF8, "application/json"),
            Headers = { { "Idempotency-Key", "key-1" } },
        };

        await host.Client.SendAsync(request, Ct).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation");
    }

    [Fact]
    public async Task There_are_only_so_many_keys_and_what_cannot_keep_its_key_is_not_done()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        host.Services.GetRequiredService<Idempotency>().MaxRecords = 2;
        await host.Client.PostedAsync("/start", Api.StartRequest(node.Id, 8101, "demo/a"), "key-1");
        await host.Client.PostedAsync("/start", Api.StartRequest(node.Id, 8102, "demo/b"), "key-2");

        await host.Client.PostAsync("/start", Api.StartRequest(node.Id, 8103, "demo/c"), "key-3").ShouldBeRefusedAsync(HttpStatusCode.ServiceUnavailable, "idempotency.too_many_keys");

        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(2);
        await host.Client.PostedAsync("/start", Api.StartRequest(node.Id, 8101, "demo/a"), "key-1");
        await host.Client.PostedAsync("/start", Api.StartRequest(node.Id, 8103, "demo/c"));
    }

    private static async Task<int> KeysAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return await db.IdempotencyRecords.CountAsync(Ct);
    }

    // sends header values as they are
    private static HttpClient RawClient(ControlPlane host) =>
        new(new SocketsHttpHandler { RequestHeaderEncodingSelector = static (_, _) => Encoding.UTF8 }) { BaseAddress = host.Url };

    private static JsonObject Body(string route, int node) => route != "/from-manifest" ? Api.StartRequest(node) : new JsonObject
    {
        ["manifest"] = new JsonObject { ["manifest_version"] = 1, ["model"] = "demo/tiny-chat", ["backend"] = "simulator", ["gpu"] = new JsonObject { ["memory_fraction"] = 0.5 } },
        ["node_id"] = node,
        ["port"] = 8101,
        ["owner"] = "tests",
    };

    /// <summary>The system's time, a while ahead.</summary>
    private sealed class ShiftedTime : TimeProvider
    {
        public TimeSpan Ahead { get; set; }

        public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + Ahead;
    }
}
