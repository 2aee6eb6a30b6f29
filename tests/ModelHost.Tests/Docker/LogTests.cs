using System.Buffers.Binary;
using System.Net;
using System.Text;
using Microsoft.AspNetCore.Http;
using ModelHost.Docker;
using ModelHost.Docker.Streams;

namespace ModelHost.Tests.Docker;

public sealed class LogTests
{
    private const string Time1 = "2026-11-20T10:58:31.123456789Z";
    private const string Time2 = "2026-11-20T10:58:31.123456790Z";
    private const string Framed = "application/vnd.docker.multiplexed-stream";
    private const string Raw = "application/vnd.docker.raw-stream";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public void Frames_may_be_cut_anywhere()
    {
        byte[] log = [.. Frame(1, "one\ntw"), .. Frame(2, "bad\n\n"), .. Frame(1, ""), .. Frame(1, "o ü"), .. Frame(2, "50%\r100%\r\n"), .. Frame(1, "€\nlast")];
        LogLine[] expected =
        [
            new(LogStream.Stdout, "one", null), new(LogStream.Stderr, "bad", null), new(LogStream.Stderr, "", null),
            new(LogStream.Stderr, "50%\r100%\r", null), new(LogStream.Stdout, "two ü€", null), new(LogStream.Stdout, "last", null),
        ];

        for (var first = 0; first <= log.Length; first++)
            for (var second = first; second <= log.Length; second++)
                Read(framed: true, timestamps: false, log[..first], log[first..second], log[second..]).ShouldBe(expected);
    }

    [Fact]
    public void Times_may_be_cut_anywhere()
    {
        byte[] log =
        [
            .. Frame(1, $"{Time1} one\n"), .. Frame(2, $"{Time2} \n"), .. Frame(1, $"{Time2} two"), .. Frame(1, " more"),
            .. Frame(1, $"{Time1} three\nno time\n{Time2} 4\n"),
        ];
        LogLine[] expected =
        [
            new(LogStream.Stdout, "one", Time1), new(LogStream.Stderr, "", Time2), new(LogStream.Stdout, "two more", Time2),
            new(LogStream.Stdout, "three", Time1), new(LogStream.Stdout, "no time", null), new(LogStream.Stdout, "4", Time2),
        ];

        for (var first = 0; first <= log.Length; first++)
            Read(framed: true, timestamps: true, log[..first], log[first..]).ShouldBe(expected);
    }

    [Fact]
    public void A_character_cut_by_a_frame_is_whole_again()
    {
        var euro = Encoding.UTF8.GetBytes("€");

        Read(framed: true, timestamps: false, [.. Frame(1, euro[..1]), .. Frame(2, "x\n"), .. Frame(1, euro[1..]), .. Frame(1, "\n")])
            .ShouldBe([new(LogStream.Stderr, "x", null), new(LogStream.Stdout, "€", null)]);
    }

    [Fact]
    public void A_long_line_comes_in_pieces_of_whole_characters()
    {
        var text = new string('x', LogLineBuilder.MaxBytes - 1) + "€" + new string('y', LogLineBuilder.MaxBytes);

        var pieces = Read(framed: true, timestamps: true, Frame(1, $"{Time1} {text}\n"), Frame(1, $"{Time2} z\n"));

        pieces.Select(p => p.Timestamp).ShouldBe([Time1, Time1, Time1, Time2]);
        string.Concat(pieces.Take(3).Select(p => p.Text)).ShouldBe(text);
        pieces[0].Text.Length.ShouldBe(LogLineBuilder.MaxBytes - 1);
    }

    [Fact]
    public void A_line_of_just_the_limit_is_one_line()
    {
        var text = new string('x', LogLineBuilder.MaxBytes);

        Read(framed: false, timestamps: false, Encoding.UTF8.GetBytes(text + "\nnext\n")).Select(l => l.Text).ShouldBe([text, "next"]);
    }

    [Fact]
    public void The_pieces_an_engine_makes_of_a_long_line_each_keep_their_time()
    {
        var (half, rest) = (new string('x', LogLineBuilder.MaxBytes), "end");

        Read(framed: true, timestamps: true, Frame(1, $"{Time1} {half}"), Frame(1, $"{Time2} {rest}\n"))
            .ShouldBe([new(LogStream.Stdout, half, Time1), new(LogStream.Stdout, rest, Time2)]);
    }

    [Fact]
    public void A_terminals_log_is_taken_as_it_is()
    {
        Read(framed: false, timestamps: true, Encoding.UTF8.GetBytes($"{Time1} a\r\n{Time2} b"))
            .ShouldBe([new(LogStream.Stdout, "a\r", Time1), new(LogStream.Stdout, "b", Time2)]);
    }

    [Theory]
    [InlineData(true, "plain text, no frames\n")]
    [InlineData(true, "\u0001\0\0\0\0\0\0\u0009short")]
    [InlineData(true, "\u0001\0\0")]
    public async Task A_log_that_is_not_in_frames_is_a_failure(bool framed, string body)
    {
        var failure = await Should.ThrowAsync<DockerException>(ReadAsync(framed ? Framed : Raw, Encoding.UTF8.GetBytes(body)));

        failure.EngineMessage.ShouldBeOneOf("the log is not in frames", "the log ended in the middle of a frame");
    }

    [Fact]
    public async Task A_failure_that_the_engine_reports_in_the_log_comes_after_the_lines()
    {
        var seen = new List<LogLine>();

        var failure = await Should.ThrowAsync<DockerException>(
            ReadAsync(Framed, [.. Frame(1, "a\n"), .. Frame(3, "Error grabbing logs: EOF\n")], seen: seen));

        failure.EngineMessage.ShouldBe("Error grabbing logs: EOF");
        seen.ShouldHaveSingleItem().Text.ShouldBe("a");
    }

    [Theory]
    [InlineData(Framed, false, true)]
    [InlineData(Raw, false, false)]
    [InlineData("application/octet-stream", false, true)]
    [InlineData(null, true, false)]
    public async Task Frames_are_known_by_content_type_or_by_the_containers_terminal(string? contentType, bool tty, bool framed)
    {
        var lines = new List<LogLine>();

        await ReadAsync(contentType, framed ? Frame(2, "hi\n") : "hi\n"u8.ToArray(), tty, lines);

        lines.ShouldHaveSingleItem().ShouldBe(new LogLine(framed ? LogStream.Stderr : LogStream.Stdout, "hi", null));
    }

    [Fact]
    public async Task What_came_before_the_engine_broke_off_is_handed_out()
    {
        var arrived = new TaskCompletionSource();
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            context.Response.ContentType = Raw;
            await context.Response.WriteAsync("one\ntwo");
            await context.Response.Body.FlushAsync();
            await arrived.Task;
            context.Abort();
        });
        using var client = new DockerClient(engine.Endpoint);
        var seen = new List<string>();

        var failure = await Should.ThrowAsync<DockerException>(async () =>
        {
            await foreach (var line in client.ReadLogsAsync("a", new() { Follow = true }, Ct))
            {
                seen.Add(line.Text);
                arrived.TrySetResult();
            }
        });

        failure.StatusCode.ShouldBeNull();
        seen.ShouldBe(["one", "two"]);
    }

    [Fact]
    public async Task The_query_says_which_part_is_wanted()
    {
        await using var engine = await HandMadeEngine.StartAsync(context =>
        {
            context.Response.ContentType = Raw;
            return Task.CompletedTask;
        });
        using var client = new DockerClient(engine.Endpoint);

        await DrainAsync(client.ReadLogsAsync("a", new(), Ct), []);
        await DrainAsync(client.ReadLogsAsync("a", new() { Follow = true, Timestamps = true, Tail = 5, Since = "1700000000.000000001" }, Ct), []);

        engine.Calls.Select(c => c.ToString()).ShouldBe([
            "GET /containers/a/logs?stdout=1&stderr=1&follow=0&timestamps=0&tail=all",
            "GET /containers/a/logs?stdout=1&stderr=1&follow=1&timestamps=1&tail=5&since=1700000000.000000001",
        ]);
    }

    [Fact]
    public async Task The_log_of_an_absent_container_is_a_failure()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"message":"No such container: a"}""", 404);
        using var client = new DockerClient(engine.Endpoint);

        (await Should.ThrowAsync<DockerException>(DrainAsync(client.ReadLogsAsync("a", new(), Ct), []))).StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    private static async Task ReadAsync(string? contentType, byte[] log, bool tty = false, List<LogLine>? seen = null)
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            if (context.Request.Path.Value!.EndsWith("/json", StringComparison.Ordinal))
            {
                await context.Response.WriteAsync($$$"""{"Id":"a","State":{"Status":"running"},"Config":{"Tty":{{{(tty ? "true" : "false")}}}}}""");
                return;
            }
            context.Response.ContentType = contentType;
            await context.Response.Body.WriteAsync(log);
        });
        using var client = new DockerClient(engine.Endpoint);
        await DrainAsync(client.ReadLogsAsync("a", new(), Ct), seen ?? []);
    }

    private static async Task DrainAsync(IAsyncEnumerable<LogLine> lines, List<LogLine> into)
    {
        await foreach (var line in lines)
            into.Add(line);
    }

    private static List<LogLine> Read(bool framed, bool timestamps, params byte[][] parts)
    {
        var demultiplexer = new LogDemultiplexer(framed, timestamps);
        var lines = new List<LogLine>();
        foreach (var part in parts)
            demultiplexer.Feed(part, lines);
        demultiplexer.Complete(lines);
        demultiplexer.Failure.ShouldBeNull();
        return lines;
    }

    private static byte[] Frame(byte stream, string text) => Frame(stream, Encoding.UTF8.GetBytes(text));

    private static byte[] Frame(byte stream, byte[] payload)
    {
        var frame = new byte[8 + payload.Length];
        frame[0] = stream;
        BinaryPrimitives.WriteInt32BigEndian(frame.AsSpan(4), payload.Length);
        payload.CopyTo(frame, 8);
        return frame;
    }
}
