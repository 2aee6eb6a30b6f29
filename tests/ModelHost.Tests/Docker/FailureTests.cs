using System.Net;
using Microsoft.AspNetCore.Http;
using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

public sealed class FailureTests
{
    private static readonly Dictionary<string, string?> NoLabels = [];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(409, """{"message":"Conflict. The name is taken"}""", "Conflict. The name is taken")]
    [InlineData(500, """{"cause":"x","message":"podman says no","response":500}""", "podman says no")]
    [InlineData(502, "<html>Bad gateway</html>", "<html>Bad gateway</html>")]
    [InlineData(404, "", "Not Found")]
    [InlineData(404, "{}", "{}")]
    [InlineData(301, "", "Moved Permanently")]
    public async Task A_refusal_carries_the_status_and_the_engines_words(int status, string body, string message)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(body, status);
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.CreateContainerAsync(new() { Image = "x" }, "secret", Ct));

        failure.StatusCode.ShouldBe((HttpStatusCode)status);
        failure.EngineMessage.ShouldBe(message);
        failure.Call.ShouldBe("POST /containers/create");
        failure.Message.ShouldBe($"POST /containers/create answered {status}: {message}");
    }

    [Fact]
    public async Task A_huge_refusal_is_cut()
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            context.Response.StatusCode = 500;
            for (var i = 0; i < 1000 && !context.RequestAborted.IsCancellationRequested; i++)
                await context.Response.WriteAsync(new string('x', 64 << 10), CancellationToken.None);
        });
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.ListContainersAsync(NoLabels, Ct));

        failure.StatusCode.ShouldBe(HttpStatusCode.InternalServerError);
        failure.EngineMessage.Length.ShouldBe(64 << 10);
    }

    [Theory]
    [InlineData("not json")]
    [InlineData("""[{"Id":5}]""")]
    [InlineData("[{}]")]
    [InlineData("""[{"Id":null}]""")]
    [InlineData("""[{"Id":"a"}""")]
    [InlineData("null")]
    [InlineData("")]
    public async Task An_answer_that_is_not_what_the_api_promises_is_a_failure(string body)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(body);
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.ListContainersAsync(NoLabels, Ct));

        failure.StatusCode.ShouldBe(HttpStatusCode.OK);
        failure.EngineMessage.ShouldStartWith("the answer ");
    }

    [Fact]
    public async Task An_answer_of_more_than_16_MiB_is_not_read_to_its_end()
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            await context.Response.WriteAsync("[" + new string(' ', 17 << 20), CancellationToken.None);
            // no end comes, and nothing more: whoever wants to read on waits forever
            await Task.Delay(Timeout.Infinite, context.RequestAborted).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        });
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.ListContainersAsync(NoLabels, Ct));

        failure.EngineMessage.ShouldBe("the answer is larger than 16777216 bytes");
    }

    [Fact]
    public async Task An_engine_that_breaks_off_in_an_answer_was_not_understood()
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            context.Response.ContentLength = 1000;
            // returning with less than was promised makes Kestrel send this and hang up
            await context.Response.WriteAsync("""[{"Id":"a"}""");
        });
        using var client = new DockerClient(engine.Endpoint);

        var failure = await Should.ThrowAsync<DockerException>(client.ListContainersAsync(NoLabels, Ct));

        failure.StatusCode.ShouldBeNull();
        failure.EngineMessage.ShouldStartWith("the engine broke off its answer");
    }

    [Fact]
    public async Task An_engine_that_breaks_off_before_an_answer_was_not_reached()
    {
        await using var engine = await HandMadeEngine.StartAsync(context =>
        {
            context.Abort();
            return Task.CompletedTask;
        });
        using var client = new DockerClient(engine.Endpoint);

        (await Should.ThrowAsync<DockerException>(client.StartContainerAsync("a", Ct))).StatusCode.ShouldBeNull();
    }

    [Fact]
    public async Task Cancelling_a_wait_closes_the_connection()
    {
        await using var engine = await SilentEngine.StartAsync();
        using var client = new DockerClient(engine.Endpoint);
        using var cancelling = new CancellationTokenSource();

        var waiting = client.WaitContainerAsync("a", cancelling.Token);
        await engine.Asked;
        await cancelling.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(waiting);
        await engine.ClosedByClient;
    }

    [Fact]
    public async Task Cancelling_a_pull_closes_the_connection()
    {
        await using var engine = await SilentEngine.StartAsync("""{"status":"Pulling from x","id":"1"}""" + "\r\n");
        using var client = new DockerClient(engine.Endpoint);
        using var cancelling = new CancellationTokenSource();

        var pulling = client.PullImageAsync("x", "1", _ => cancelling.Cancel(), cancelling.Token);

        await Should.ThrowAsync<OperationCanceledException>(pulling);
        await engine.ClosedByClient;
    }

    [Fact]
    public async Task Cancelling_a_followed_log_closes_the_connection()
    {
        await using var engine = await SilentEngine.StartAsync("hello\n", "application/vnd.docker.raw-stream");
        using var client = new DockerClient(engine.Endpoint);
        using var cancelling = new CancellationTokenSource();

        await Should.ThrowAsync<OperationCanceledException>(async () =>
        {
            await foreach (var _ in client.ReadLogsAsync("a", new() { Follow = true }, cancelling.Token))
                await cancelling.CancelAsync();
        });

        await engine.ClosedByClient;
    }

    [Fact]
    public async Task Leaving_a_followed_log_closes_the_connection()
    {
        await using var engine = await SilentEngine.StartAsync("hello\n", "application/vnd.docker.raw-stream");
        using var client = new DockerClient(engine.Endpoint);

        await foreach (var line in client.ReadLogsAsync("a", new() { Follow = true }, Ct))
        {
            line.Text.ShouldBe("hello");
            break;
        }

        await engine.ClosedByClient;
    }
}
