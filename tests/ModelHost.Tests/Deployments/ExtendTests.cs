using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Core.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Changes of a lease and of the pin, while the engine goes on.</summary>
public sealed class ExtendTests
{
    private static readonly DateTimeOffset Deadline = new(2030, 1, 1, 12, 0, 0, TimeSpan.Zero);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public static TheoryData<string, DateTimeOffset?, int?, DateTimeOffset?, int?> Extensions => new()
    {
        // the body; deadline and duration before; deadline and duration afterwards
        { """{"hours":2}""", Deadline, 3600, Deadline.AddHours(2), 3600 + 7200 },
        { """{"hours":0.5,"infinite":false}""", Deadline, 60, Deadline.AddMinutes(30), 60 + 1800 },
        { """{"hours":336}""", null, 60, null, 60 + 1_209_600 },
        { """{"hours":1}""", Deadline, null, Deadline.AddHours(1), null },
        { """{"infinite":true}""", Deadline, 3600, null, null },
        { """{"infinite":true}""", null, 3600, null, null },
        { """{"infinite":true}""", null, null, null, null },
        { """{"hours":0.0001}""", Deadline, 60, Deadline.AddSeconds(1), 61 },
        { """{"hours":336}""", Deadline, int.MaxValue, Deadline.AddHours(336), int.MaxValue },
    };

    [Theory]
    [MemberData(nameof(Extensions))]
    public async Task A_deadline_is_moved_or_dropped(string body, DateTimeOffset? before, int? durationBefore, DateTimeOffset? after, int? durationAfter)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id, change: r => r["duration_seconds"] = durationBefore));
        await node.SetAsync(id, DeploymentStatus.Running);
        await node.ChangeAsync(id, row => row.ExpiresAt = before);
        var (run, version) = await node.RowAsync(id) is var row ? (row.RunId, row.Version) : default;

        var answer = await host.Client.PostedAsync($"/{id}/extend", JsonNode.Parse(body)!.AsObject());

        var stored = await node.RowAsync(id);
        (stored.ExpiresAt, stored.ReadSpec().DurationSeconds, stored.RunId, stored.Version, stored.Status).ShouldBe((after, durationAfter, run, version + 1, DeploymentStatus.Running));
        answer.GetProperty("expires_at").ValueKind.ShouldBe(after is null ? JsonValueKind.Null : JsonValueKind.String);
        if (after is { } moved)
            answer.GetProperty("expires_at").GetDateTimeOffset().ShouldBe(moved);
    }

    [Fact]
    public async Task Of_a_model_that_serves_the_deadline_moves_and_the_engine_stays()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"), change: r => r["duration_seconds"] = 3600));
        var before = (await host.Client.StatusAsync(id, "running")).GetProperty("expires_at").GetDateTimeOffset();

        await host.Client.PostedAsync($"/{id}/extend", new JsonObject { ["hours"] = 1 });
        var later = await TestKit.Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), d => d.Text("status") == "running");
        await host.Client.PostedAsync($"/{id}/extend", new JsonObject { ["infinite"] = true });
        var endless = await host.Client.JsonAsync($"/api/deployments/{id}");
        await host.Client.PostAsync($"/{id}/extend", new JsonObject { ["hours"] = 1 }).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.no_expiry");
        await host.Client.StopModelAsync(id);

        later.GetProperty("expires_at").GetDateTimeOffset().ShouldBe(before.AddHours(1));
        endless.GetProperty("expires_at").ValueKind.ShouldBe(JsonValueKind.Null);
    }

    [Theory]
    [InlineData(DeploymentStatus.Running, true)]
    [InlineData(DeploymentStatus.Loading, true)]
    [InlineData(DeploymentStatus.Starting, true)]
    [InlineData(DeploymentStatus.PausedRam, true)]
    [InlineData(DeploymentStatus.Stopping, false)]
    [InlineData(DeploymentStatus.Stopped, false)]
    [InlineData(DeploymentStatus.Expired, false)]
    [InlineData(DeploymentStatus.Error, false)]
    [InlineData(DeploymentStatus.Unreachable, false)]
    public async Task Only_what_serves_or_will_is_extended(DeploymentStatus status, bool extends)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id, change: r => r["duration_seconds"] = 60));
        await node.SetAsync(id, status);

        if (extends)
            (await host.Client.PostedAsync($"/{id}/extend", new JsonObject { ["hours"] = 1 })).GetProperty("duration_seconds").GetInt32().ShouldBe(3660);
        else
            (await host.Client.PostAsync($"/{id}/extend", new JsonObject { ["hours"] = 1 }).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "deployment.wrong_status"))
                .ShouldStartWith($"Deployment {id} is {status.ToWire()}; ");
    }

    [Theory]
    [InlineData("{}", "hours")]
    [InlineData("""{"infinite":false}""", "hours")]
    [InlineData("""{"hours":null,"infinite":null}""", "hours")]
    [InlineData("""{"hours":1,"infinite":true}""", "infinite")]
    [InlineData("""{"hours":0}""", "hours")]
    [InlineData("""{"hours":-1}""", "hours")]
    [InlineData("""{"hours":336.01}""", "hours")]
    [InlineData("""{"hours":"1"}""", "hours")]
    [InlineData("""{"infinite":"yes"}""", "infinite")]
    [InlineData("""{"hours":1,"days":1}""", "days")]
    public async Task An_extension_says_one_thing(string body, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id, change: r => r["duration_seconds"] = 60));

        await host.Client.PostAsync($"/{id}/extend", JsonNode.Parse(body)!.AsObject()).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);

        (await node.RowAsync(id)).ReadSpec().DurationSeconds.ShouldBe(60);
    }

    [Fact]
    public async Task Any_deployment_is_pinned_and_unpinned_and_asking_again_is_harmless()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        foreach (var status in Enum.GetValues<DeploymentStatus>())
        {
            await node.SetAsync(id, status);
            foreach (var pinned in (bool[])[true, true, false])
                (await host.Client.PostedAsync($"/{id}/pin", new JsonObject { ["pinned"] = pinned })).GetProperty("pinned").GetBoolean().ShouldBe(pinned);
        }

        await host.Client.PostedAsync($"/{id}/pin", new JsonObject { ["pinned"] = true });
        var before = await node.RowAsync(id);
        await host.Client.PostedAsync($"/{id}/pin", new JsonObject { ["pinned"] = true });

        before.ReadSpec().Pinned.ShouldBeTrue();
        (await node.RowAsync(id)).Version.ShouldBe(before.Version);
    }

    [Theory]
    [InlineData("{}", "pinned")]
    [InlineData("""{"pinned":null}""", "pinned")]
    [InlineData("""{"pinned":1}""", "pinned")]
    [InlineData("""{"pinned":true,"for":"ever"}""", "for")]
    public async Task A_pin_says_yes_or_no(string body, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));

        await host.Client.PostAsync($"/{id}/pin", JsonNode.Parse(body)!.AsObject()).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);
    }

    [Theory]
    [InlineData("extend", """{"hours":1}""")]
    [InlineData("pin", """{"pinned":true}""")]
    public async Task What_is_not_there_is_not_changed(string route, string body)
    {
        await using var host = await ControlPlane.StartAsync();

        await host.Client.PostAsync($"/987/{route}", JsonNode.Parse(body)!.AsObject()).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "deployment.not_found");
    }
}
