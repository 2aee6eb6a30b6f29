using System.Globalization;
using System.Net;
using ModelHost.Docker;

namespace ModelHost.IntegrationTests.Docker;

public sealed class LiveEventTests(RealDockerFixture fixture)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_life_of_a_container_is_seen_in_order()
    {
        await using var live = new LiveContainers(fixture);
        var labels = new Dictionary<string, string?> { ["modelhost.test"] = live.Mark };
        var query = new EventQuery { Types = ["container"], Labels = labels, Since = Now() };

        var watching = UntilDestroyedAsync(live.Client, query);
        var id = await live.StartAsync(live.Shell("exit 3"), $"mh-{live.Mark}");
        await live.Client.WaitContainerAsync(id, Ct);
        await live.Client.RemoveContainerAsync(id, force: false, Ct);
        var events = await watching.WaitAsync(TimeSpan.FromSeconds(180), Ct);

        events.Select(e => e.Action).ShouldBe(["create", "start", "die", "destroy"]);
        events.ShouldAllBe(e => e.Type == "container" && e.Id == id && e.Attributes["name"] == $"mh-{live.Mark}");
        events.Select(e => e.Time).ShouldBe(events.Select(e => e.Time).Order(StringComparer.Ordinal));
        events[2].Attributes["exitCode"].ShouldBe("3");
        events[2].Attributes["modelhost.test"].ShouldBe(live.Mark);
    }

    [Fact]
    public async Task The_time_of_an_event_is_where_to_go_on()
    {
        await using var live = new LiveContainers(fixture);
        var query = new EventQuery
        {
            Labels = new Dictionary<string, string?> { ["modelhost.test"] = live.Mark },
            Actions = ["create", "die", "destroy"],
            Since = Now(),
        };
        var id = await live.StartAsync(live.Shell("true"));
        await live.Client.WaitContainerAsync(id, Ct);
        await live.Client.RemoveContainerAsync(id, force: false, Ct);

        var all = await UntilDestroyedAsync(live.Client, query).WaitAsync(TimeSpan.FromSeconds(180), Ct);
        var rest = await UntilDestroyedAsync(live.Client, query with { Since = all[1].Time }).WaitAsync(TimeSpan.FromSeconds(180), Ct);
        var between = new List<string>();
        await foreach (var found in live.Client.WatchEventsAsync(query with { Until = all[1].Time }, Ct))
            between.Add(found.Action);

        all.Select(e => e.Action).ShouldBe(["create", "die", "destroy"]);
        rest.Select(e => e.Action).ShouldBe(["die", "destroy"]);
        between.ShouldBe(["create", "die"]);
    }

    [Fact]
    public async Task A_time_that_is_none_is_refused()
    {
        using var client = new DockerClient(fixture.Docker.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(UntilDestroyedAsync(client, new() { Since = "yesterday" }));

        failure.StatusCode.ShouldBeOneOf(HttpStatusCode.BadRequest, HttpStatusCode.InternalServerError);
    }

    private static string Now() => DateTimeOffset.UtcNow.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);

    private static async Task<List<EngineEvent>> UntilDestroyedAsync(DockerClient client, EventQuery query)
    {
        var events = new List<EngineEvent>();
        await foreach (var found in client.WatchEventsAsync(query, Ct))
        {
            events.Add(found);
            if (found.Action == "destroy")
                break;
        }
        return events;
    }
}
