using System.Globalization;
using ModelHost.Docker;

namespace ModelHost.IntegrationTests.Docker;

public sealed class LiveLogTests(RealDockerFixture fixture)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Both_outputs_are_followed_with_their_times()
    {
        await using var live = new LiveContainers(fixture);

        var lines = await live.RunAsync(
            live.Shell("echo one; sleep 0.1; echo bad >&2; sleep 0.1; printf 'ü 1%%\\rü 2%%\\n\\nlast\\n'"), new() { Follow = true, Timestamps = true });

        // an engine reads the two side by side: a busy one takes them up in any order
        var (said, bad) = (lines.Where(l => l.Stream == LogStream.Stdout).ToList(), lines.Where(l => l.Stream == LogStream.Stderr).ToList());
        said.Select(l => l.Text).ShouldBe(["one", "ü 1%\rü 2%", "", "last"]);
        bad.ShouldHaveSingleItem().Text.ShouldBe("bad");
        lines.Count.ShouldBe(5);
        DateTimeOffset.TryParse(bad[0].Timestamp, CultureInfo.InvariantCulture, out _).ShouldBeTrue();
        var times = said.Select(l => DateTimeOffset.Parse(l.Timestamp.ShouldNotBeNull(), CultureInfo.InvariantCulture)).ToList();
        times.ShouldBeInOrder();
        times[0].ShouldBeLessThan(times[^1]);
    }

    [Fact]
    public async Task A_line_longer_than_the_engine_keeps_is_complete_in_pieces()
    {
        await using var live = new LiveContainers(fixture);

        var lines = await live.RunAsync(
            live.Shell("head -c 40000 /dev/zero | tr '\\0' x; echo; echo end"), new() { Follow = true, Timestamps = true });

        string.Concat(lines.SkipLast(1).Select(l => l.Text)).ShouldBe(new string('x', 40000));
        lines.ShouldAllBe(l => l.Timestamp != null && l.Text.Length <= 16 << 10);
        lines[^1].Text.ShouldBe("end");
    }

    [Fact]
    public async Task Only_the_part_asked_for_is_read()
    {
        await using var live = new LiveContainers(fixture);
        var id = await live.StartAsync(live.Shell("for i in 1 2 3 4 5; do echo $i; done"));
        await live.Client.WaitContainerAsync(id, Ct);

        var all = await live.Client.ReadLogsAsync(id, new() { Timestamps = true }, Ct).ToListAsync(Ct);
        var last = await live.Client.ReadLogsAsync(id, new() { Tail = 2 }, Ct).ToListAsync(Ct);
        var none = await live.Client.ReadLogsAsync(id, new() { Tail = 0 }, Ct).ToListAsync(Ct);
        var time = DateTimeOffset.Parse(all[3].Timestamp!, CultureInfo.InvariantCulture);
        var since = await live.Client.ReadLogsAsync(
            id, new() { Since = $"{time.ToUnixTimeSeconds()}.{all[3].Timestamp![20..29]}" }, Ct).ToListAsync(Ct);

        all.Select(l => l.Text).ShouldBe(["1", "2", "3", "4", "5"]);
        last.Select(l => l.Text).ShouldBe(["4", "5"]);
        none.ShouldBeEmpty();
        since.Select(l => l.Text).ShouldBe(["4", "5"]);
    }

    [Fact]
    public async Task A_last_line_without_an_end_is_there_after_the_container()
    {
        await using var live = new LiveContainers(fixture);
        var id = await live.StartAsync(live.Shell("printf 'one\\nlast'"));
        await live.Client.WaitContainerAsync(id, Ct);

        // not followed: Docker 20.10 mostly loses this line for those who follow
        var lines = await live.Client.ReadLogsAsync(id, new(), Ct).ToListAsync(Ct);

        lines.Select(l => l.Text).ShouldBe(["one", "last"]);
    }

    [Fact]
    public async Task Following_can_be_given_up()
    {
        await using var live = new LiveContainers(fixture);
        var id = await live.StartAsync(live.Shell("echo up; sleep 100"));
        using var cancelling = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        var seen = new List<string>();

        await Should.ThrowAsync<OperationCanceledException>(async () =>
        {
            await foreach (var line in live.Client.ReadLogsAsync(id, new() { Follow = true }, cancelling.Token))
            {
                seen.Add(line.Text);
                cancelling.CancelAfter(TimeSpan.FromMilliseconds(50));
            }
        });

        seen.ShouldBe(["up"]);
        (await live.Client.InspectContainerAsync(id, Ct)).State.Running.ShouldBeTrue();
    }

    [Fact]
    public async Task The_log_of_a_terminal_is_one_raw_stream()
    {
        await using var live = new LiveContainers(fixture);
        var id = (await fixture.Docker.CliAsync(
            Ct, "run", "-dt", "--label", $"modelhost.test={live.Mark}", "modelhost-test/busybox:1", "sh", "-c", "echo out; echo err >&2")).Trim();

        var lines = await live.Client.ReadLogsAsync(id, new() { Follow = true, Timestamps = true }, Ct).ToListAsync(Ct);
        await live.Client.RemoveContainerAsync(id, force: true, Ct);

        lines.Select(l => (l.Stream, l.Text)).ShouldBe([(LogStream.Stdout, "out\r"), (LogStream.Stdout, "err\r")]);
        lines.ShouldAllBe(l => l.Timestamp != null);
    }
}
