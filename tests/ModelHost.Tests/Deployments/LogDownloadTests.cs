using System.Net;
using System.Runtime.CompilerServices;
using Google.Protobuf;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Logs as files.</summary>
public sealed class LogDownloadTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_whole_log_of_a_run_comes_as_a_file_while_it_runs_and_afterwards()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"), model: "demo/tiny-chat"));
        await host.Client.StatusAsync(id, "running");
        // an engine answers before it says that it is up, and what it says is read a moment later
        await Deadline.UntilAsync(
            () => host.Client.JsonAsync($"/api/deployments/{id}/logs?tail=2000"), log => log.GetProperty("lines").ToString().Contains("Application startup complete", StringComparison.Ordinal), what: "its last line of the start");

        using var running = await DownloadAsync(host, id);
        await host.Client.StopModelAsync(id);
        using var stopped = await DownloadAsync(host, id);

        (running.Content.Headers.ContentType!.MediaType, running.Content.Headers.ContentDisposition!.DispositionType, running.Content.Headers.ContentDisposition.FileName)
            .ShouldBe(("text/plain", "attachment", "demo--tiny-chat-8101.log"));
        (await running.Content.ReadAsStringAsync(Ct)).ShouldContain("Application startup complete");
        var lines = (await stopped.Content.ReadAsStringAsync(Ct)).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        lines.ShouldBe((await host.Client.JsonAsync($"/api/deployments/{id}/logs?tail=2000")).GetProperty("lines").EnumerateArray().Select(line => line.GetString()));
        lines[^1].ShouldEndWith("[modelhost] stopped");
    }

    [Fact]
    public async Task The_older_part_comes_first_and_only_the_latest_run_is_in_it()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process")));
        await host.Client.StatusAsync(id, "running");
        await host.Client.StopModelAsync(id);
        var log = Directory.GetFiles(Path.Combine(host.Node.Data, "logs"), "*.log", SearchOption.AllDirectories).ShouldHaveSingleItem();
        await File.WriteAllTextAsync(log + ".1", "older\n", Ct);
        await File.WriteAllTextAsync(log, new string('x', 300_000) + "\nnewer\n", Ct);
        await File.WriteAllTextAsync(Path.Combine(Path.GetDirectoryName(log)!, Guid.NewGuid().ToString("N") + ".log"), "another run\n", Ct);

        using var answer = await DownloadAsync(host, id);

        (await answer.Content.ReadAsStringAsync(Ct)).ShouldBe("older\n" + new string('x', 300_000) + "\nnewer\n");
    }

    [Fact]
    public async Task What_fails_before_the_first_piece_is_an_error()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        var path = new Uri($"/api/deployments/{id}/logs/download", UriKind.Relative);

        (await host.Client.GetAsync(path, Ct).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "deployment.no_log")).ShouldBe($"The latest run of deployment {id} has no log.");
        node.Log = () => Failing();
        await host.Client.GetAsync(path, Ct).ShouldBeRefusedAsync(HttpStatusCode.ServiceUnavailable, "node.unreachable");
        node.Log = () => throw new InvalidOperationException("no");
        await host.Client.GetAsync(path, Ct).ShouldBeRefusedAsync(HttpStatusCode.ServiceUnavailable, "node.unreachable");
        await host.Client.GetAsync(new Uri("/api/deployments/987/logs/download", UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "deployment.not_found");
    }

    [Fact]
    public async Task What_fails_later_breaks_the_answer_off_and_is_no_short_file()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        node.Log = () => Failing("the beginning");

        using var answer = await host.Client.GetAsync(new Uri($"/api/deployments/{id}/logs/download", UriKind.Relative), HttpCompletionOption.ResponseHeadersRead, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        await Should.ThrowAsync<HttpRequestException>(() => answer.Content.ReadAsStringAsync(Ct));
    }

    [Fact]
    public async Task Pieces_go_out_as_they_come_and_whoever_leaves_ends_the_reading()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        node.Log = () => Endless(ended);

        using (var answer = await host.Client.GetAsync(new Uri($"/api/deployments/{id}/logs/download", UriKind.Relative), HttpCompletionOption.ResponseHeadersRead, Ct))
        {
            await using var stream = await answer.Content.ReadAsStreamAsync(Ct);
            await stream.ReadExactlyAsync(new byte[1024 * 1024], Ct);
        }

        await ended.Task.WaitAsync(Deadline.Allowed(60), Ct);
    }

    private static async Task<HttpResponseMessage> DownloadAsync(ControlPlane host, int id)
    {
        var answer = await host.Client.GetAsync(new Uri($"/api/deployments/{id}/logs/download", UriKind.Relative), Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        return answer;
    }

    private static async IAsyncEnumerable<LogPiece> Failing(params string[] texts)
    {
        await foreach (var piece in QuietNode.Pieces(texts))
            yield return piece;
        throw new IOException("the node is gone");
    }

    private static async IAsyncEnumerable<LogPiece> Endless(TaskCompletionSource ended, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        try
        {
            while (true)
            {
                await Task.Yield();
                cancellationToken.ThrowIfCancellationRequested();
                yield return new LogPiece { Data = ByteString.CopyFrom(new byte[4096]) };
            }
        }
        finally
        {
            ended.TrySetResult();
        }
    }
}
