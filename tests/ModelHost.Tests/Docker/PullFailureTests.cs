using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Options;
using ModelHost.TestKit;

namespace ModelHost.Tests.Docker;

/// <summary>A control plane on a hand-made engine that has no image and whose pulls go wrong: what the operator reads.</summary>
public sealed class PullFailureTests
{
    private const string Repository = "registry.example:5000/team/engine";
    private const string Image = Repository + ":v1.0.0";

    [Theory]
    [InlineData("disk_full", "no room", """{"errorDetail":{"message":"write /var/lib/docker/tmp/GetImageBlob1: no space left on device"},"error":"x"}""")]
    [InlineData("disk_full", "no room", """{"error":"failed to register layer: write /usr/lib/x: no space left on device"}""")]
    [InlineData("registry_auth", "without a login", """{"errorDetail":{"message":"unauthorized: authentication required"}}""")]
    [InlineData("registry_unreachable", "broke off", """{"errorDetail":{"message":"unexpected EOF"}}""")]
    [InlineData("pull_failed", "could not be pulled", "")]
    [InlineData("pull_failed", "could not be pulled", """{"status":"Downl""")]
    public async Task A_stream_that_goes_wrong_half_way_is_an_error_with_its_cause(string code, string words, string last)
    {
        await using var engine = await EngineAsync(context => context.Response.WriteAsync(Begun + last));
        await using var host = await StartAsync(engine);

        var (failed, log) = await FailAsync(host);

        failed.ShouldContain(words);
        failed.ShouldContain($"image {Image}");
        failed.ShouldContain("egistry registry.example:5000");
        log.ShouldContain(line => line.EndsWith($"[modelhost] failed ({code})", StringComparison.Ordinal));
        log.ShouldContain(line => line.EndsWith("[docker] a: Downloading", StringComparison.Ordinal));
    }

    [Fact]
    public async Task An_engine_that_says_nothing_at_all_is_waited_for_no_longer_than_the_setting_says()
    {
        await using var engine = await EngineAsync(context => Task.Delay(Timeout.Infinite, context.RequestAborted).ContinueWith(_ => { }, TaskScheduler.Default));
        await using var host = await StartAsync(engine, "Node:PullStallTimeout=00:00:01");

        var (failed, _) = await FailAsync(host);

        failed.ShouldContain($"Registry registry.example:5000 sent nothing more of image {Image} for 1 s (Node:PullStallTimeout)");
    }

    [Theory]
    [InlineData("")]
    [InlineData("""{"status":"Download complete","id":"a"}""")] // and then its checksum was wrong
    public async Task A_countdown_to_a_retry_does_not_pass_for_progress(string before)
    {
        await using var engine = await EngineAsync(async context =>
        {
            // the first of them comes with what was before: between the two no time can pass that would be enough to give up
            var said = Begun + before;
            using var second = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
            for (var i = 10_000; !context.RequestAborted.IsCancellationRequested && await second.WaitForNextTickAsync(); i--)
            {
                await context.Response.WriteAsync(said + $$"""{"status":"Retrying in {{i}} seconds","progressDetail":{},"id":"a"}""" + "\r\n");
                await context.Response.Body.FlushAsync();
                said = "";
            }
        });
        await using var host = await StartAsync(engine, "Node:PullStallTimeout=00:00:05");

        var (failed, log) = await FailAsync(host);

        failed.ShouldContain("(last: a: Retrying in ");
        log.Count(line => line.Contains("Retrying", StringComparison.Ordinal)).ShouldBe(1);
    }

    [Fact]
    public async Task Unpacking_may_take_longer_than_the_registry_may_be_silent()
    {
        var unpacked = new TaskCompletionSource();
        await using var engine = await EngineAsync(async context =>
        {
            await context.Response.WriteAsync(Begun + """{"status":"Download complete","id":"a"}""");
            await context.Response.Body.FlushAsync();
            await unpacked.Task;
            await context.Response.WriteAsync("""{"error":"the end of this test"}""");
        });
        await using var host = await StartAsync(engine, "Node:PullStallTimeout=00:00:05");
        var id = await host.Client.StartModelAsync(await RequestAsync(host));
        await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/deployments/{id}"), d => d.GetProperty("detail").GetString() == "extracting image");
        var began = TimeProvider.System.GetTimestamp();

        await Deadline.UntilAsync(() => TimeProvider.System.GetElapsedTime(began) > TimeSpan.FromSeconds(7));
        unpacked.SetResult();
        var failed = await host.Client.StatusAsync(id, "error");

        failed.GetProperty("last_error").GetString()!.ShouldContain("the end of this test");
    }

    [Theory]
    [InlineData("Node:ImageRepository=https://registry.example/vllm", "Node:ImageRepository=https://registry.example/vllm: a repository is")]
    [InlineData("Node:ImageRepository=robot:s3cret@registry.example/vllm", "Node:ImageRepository=********@registry.example/vllm: a repository is")]
    [InlineData("Node:ImageRepository=registry.example/vllm:v1", "Node:ImageRepository=registry.example/vllm:v1: a repository is")]
    [InlineData("Node:PullStallTimeout=00:00:00", "Node:PullStallTimeout=00:00:00: ")]
    public async Task A_setting_that_cannot_be_is_refused_at_start(string setting, string message)
    {
        var refusal = await Should.ThrowAsync<OptionsValidationException>(ControlPlane.StartAsync(configuration: setting));

        refusal.Message.ShouldContain(message);
        refusal.Message.ShouldNotContain("s3cret");
    }

    private const string Begun = """
        {"status":"Pulling from team/engine","id":"v1.0.0"}
        {"status":"Pulling fs layer","progressDetail":{},"id":"a"}
        {"status":"Downloading","progressDetail":{"current":100,"total":1000},"id":"a"}

        """;

    private static Task<HandMadeEngine> EngineAsync(RequestDelegate pull) => HandMadeEngine.StartAsync(async context =>
    {
        var path = context.Request.Path.Value!;
        context.Response.ContentType = "application/json";
        if (path.EndsWith("/images/create", StringComparison.Ordinal))
            await pull(context);
        else if (path.EndsWith("/containers/json", StringComparison.Ordinal))
            await context.Response.WriteAsync("[]");
        else
        {
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            await context.Response.WriteAsync("""{"message":"No such image"}""");
        }
    });

    private static Task<ControlPlane> StartAsync(HandMadeEngine engine, params string[] settings) => ControlPlane.StartAsync(
        configuration: [$"Node:DockerHost={engine.Endpoint.OriginalString}", $"Node:ImageRepository={Repository}", .. settings]);

    private static async Task<JsonObject> RequestAsync(ControlPlane host) => Api.StartRequest(
        await host.Client.NodeAsync("docker"), backend: "vllm", change: request => request["vllm_version"] = "v1.0.0");

    private static async Task<(string LastError, string[] Log)> FailAsync(ControlPlane host)
    {
        var id = await host.Client.StartModelAsync(await RequestAsync(host));
        var failed = await host.Client.StatusAsync(id, "error");
        var log = await host.Client.JsonAsync($"/api/deployments/{id}/logs");
        return (failed.GetProperty("last_error").GetString()!, [.. log.GetProperty("lines").EnumerateArray().Select(line => line.GetString()!)]);
    }
}
