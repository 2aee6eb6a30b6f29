using System.Net;
using Microsoft.AspNetCore.Http;
using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

public sealed class EventTests
{
    /// <summary>As Docker 20.10 writes it.</summary>
    private const string Die = """
        {"status":"die","id":"d160","from":"busybox:1","Type":"container","Action":"die","Actor":{"ID":"d160","Attributes":{"exitCode":"137","image":"busybox:1","modelhost.run":"7","name":"web"}},"scope":"local","time":1795179159,"timeNano":1795179159049680013}
        """;

    /// <summary>Without what older engines repeat, and without attributes.</summary>
    private const string Reload = """{"Type":"daemon","Action":"reload","Actor":{"ID":"x","Attributes":null},"time":1795179160}""";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Events_come_as_the_engine_wrote_them()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(Die + "\n" + Reload + Reload);
        using var client = new DockerClient(engine.Endpoint);

        var events = await WatchAsync(client, new());

        events.Count.ShouldBe(3);
        events[0].Type.ShouldBe("container");
        events[0].Action.ShouldBe("die");
        events[0].Id.ShouldBe("d160");
        events[0].Attributes.ShouldBe(new Dictionary<string, string>
        {
            ["exitCode"] = "137",
            ["image"] = "busybox:1",
            ["modelhost.run"] = "7",
            ["name"] = "web",
        });
        events[0].Time.ShouldBe("1795179159.049680013");
        events[1].Attributes.ShouldBeEmpty();
        events[1].Time.ShouldBe("1795179160.000000000");
    }

    [Fact]
    public async Task The_query_says_which_events_are_wanted()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("");
        using var client = new DockerClient(engine.Endpoint);

        await WatchAsync(client, new());
        await WatchAsync(client, new()
        {
            Types = ["container", "image"],
            Labels = new Dictionary<string, string?> { ["modelhost.node"] = "a=b", ["modelhost.run"] = null },
            Actions = ["die", "oom"],
            Since = "1700000000.000000001",
            Until = "1700000100",
        });
        await WatchAsync(client, new() { Actions = ["die"] });

        engine.Calls.Select(c => c.ToString()).ShouldBe([
            "GET /events",
            "GET /events?since=1700000000.000000001&until=1700000100&filters="
                + """{"type":["container","image"],"label":["modelhost.node=a=b","modelhost.run"],"event":["die","oom"]}""",
            """GET /events?filters={"event":["die"]}""",
        ]);
    }

    [Fact]
    public async Task An_event_is_handed_out_before_anything_follows_it()
    {
        await using var engine = await SilentEngine.StartAsync(Die);
        using var client = new DockerClient(engine.Endpoint);

        await foreach (var found in client.WatchEventsAsync(new(), Ct))
        {
            found.Action.ShouldBe("die");
            break;
        }

        await engine.ClosedByClient;
    }

    [Fact]
    public async Task Cancelling_a_watch_closes_the_connection()
    {
        await using var engine = await SilentEngine.StartAsync(Die + "\n");
        using var client = new DockerClient(engine.Endpoint);
        using var cancelling = new CancellationTokenSource();

        await Should.ThrowAsync<OperationCanceledException>(async () =>
        {
            await foreach (var _ in client.WatchEventsAsync(new(), cancelling.Token))
                await cancelling.CancelAsync();
        });

        await engine.ClosedByClient;
    }

    [Theory]
    [InlineData("<html>", "the answer is not a stream of objects")]
    [InlineData("""{"Type":"container","Action":"di""", "the answer ended within an object")]
    [InlineData("""{"Type":"container"}""", "the answer cannot be read: ")]
    [InlineData("""{"Type":"container","Action":null}""", "the answer cannot be read: ")]
    [InlineData("""{"Type":"container","Action":"die"]""", "the answer cannot be read: ")]
    public async Task What_is_no_event_is_a_failure_after_those_before_it(string garbage, string message)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(Die + "\n" + garbage);
        using var client = new DockerClient(engine.Endpoint);
        var seen = new List<EngineEvent>();

        var failure = await Should.ThrowAsync<DockerException>(WatchAsync(client, new(), seen));

        failure.EngineMessage.ShouldStartWith(message);
        failure.StatusCode.ShouldBe(HttpStatusCode.OK);
        failure.Call.ShouldBe("GET /events");
        seen.ShouldHaveSingleItem();
    }

    [Fact]
    public async Task An_event_without_an_end_is_not_gathered()
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            await context.Response.WriteAsync("""{"Type":"container","Action":" """);
            while (!context.RequestAborted.IsCancellationRequested)
                await context.Response.WriteAsync(new string('x', 64 << 10), CancellationToken.None);
        });
        using var client = new DockerClient(engine.Endpoint);

        (await Should.ThrowAsync<DockerException>(WatchAsync(client, new()))).EngineMessage
            .ShouldBe("an object of the answer is larger than 1048576 bytes");
    }

    [Fact]
    public async Task A_watch_may_be_refused()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"message":"invalid filter 'x'"}""", 400);
        using var client = new DockerClient(engine.Endpoint);

        (await Should.ThrowAsync<DockerException>(WatchAsync(client, new()))).StatusCode.ShouldBe(HttpStatusCode.BadRequest);
    }

    private static async Task<List<EngineEvent>> WatchAsync(DockerClient client, EventQuery query, List<EngineEvent>? into = null)
    {
        into ??= [];
        await foreach (var found in client.WatchEventsAsync(query, Ct))
            into.Add(found);
        return into;
    }
}
