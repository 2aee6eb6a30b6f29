using System.Text;
using System.Text.Json;
using ModelHost.Agent.Metering;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.Metering;

/// <summary>How the gateway asks for the count of a stream's tokens in a body that it otherwise leaves alone.</summary>
public sealed class UsageRequestTests
{
    private const int Mib = 1024 * 1024;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("""{"model":"m","stream":true}""", """{"model":"m","stream":true,"stream_options":{"include_usage":true}}""")]
    [InlineData("""{ "stream" : true , "model" : "m" } """ + "\n", """{ "stream" : true , "model" : "m" ,"stream_options":{"include_usage":true}} """ + "\n")]
    [InlineData("""{"model":"m","stream":true,"stream_options":null,"a":[{}]}""", """{"model":"m","stream":true,"stream_options":{"include_usage":true},"a":[{}]}""")]
    [InlineData("""{"model":"m","stream_options":{},"stream":true}""", """{"model":"m","stream_options":{"include_usage":true},"stream":true}""")]
    [InlineData("""{"model":"m","stream_options": { "x" : {"include_usage":false} } ,"stream":true}""", """{"model":"m","stream_options": {"include_usage":true, "x" : {"include_usage":false} } ,"stream":true}""")]
    [InlineData("""{"model":"m","stream_options":{"include_usage":false,"x":1},"stream":true}""", """{"model":"m","stream_options":{"include_usage":true,"x":1},"stream":true}""")]
    [InlineData("""{"model":"m","stream_options":{"x":[1],"include_usage":null},"stream":true}""", """{"model":"m","stream_options":{"x":[1],"include_usage":true},"stream":true}""")]
    [InlineData("""{"stream_options":{"stream_options":1},"model":"m","stream":true,"x":{"stream":false}}""", """{"stream_options":{"include_usage":true,"stream_options":1},"model":"m","stream":true,"x":{"stream":false}}""")]
    public async Task A_stream_without_a_count_is_asked_for_one(string body, string sent)
    {
        foreach (var piece in (int[])[1, 3, 16, int.MaxValue])
            (await SendAsync(body, piece)).ShouldBe((sent, true), $"in pieces of {piece}");
    }

    [Theory]
    [InlineData("""{"model":"m"}""")]
    [InlineData("""{"model":"m","stream":false}""")]
    [InlineData("""{"model":"m","stream":true,"stream":false}""")]
    [InlineData("""{"model":"m","stream":null,"x":{"stream":true}}""")]
    [InlineData("""{"model":"m","stream_options":7,"stream":false}""")]
    [InlineData("""{"model":"m","stream":true,"stream_options":{"include_usage":true}}""")]
    public async Task Every_other_body_is_left_as_it_is(string body)
    {
        foreach (var piece in (int[])[1, 3, int.MaxValue])
            (await SendAsync(body, piece)).ShouldBe((body, false), $"in pieces of {piece}");
    }

    /// <summary>An engine may read them otherwise than the gateway, and its stream would not be counted.</summary>
    [Theory]
    [InlineData("\"stream\":\"true\"", "stream")]
    [InlineData("\"stream\":1", "stream")]
    [InlineData("\"stream\":{}", "stream")]
    [InlineData("\"str\\u0065am\": \"yes\"", "stream")]
    [InlineData("\"stream\":true,\"stream_options\":[]", "stream_options")]
    [InlineData("\"stream_options\":7,\"stream\":true", "stream_options")]
    [InlineData("\"stream\":true,\"stream_options\":{\"include_usage\":\"no\"}", "stream_options")]
    [InlineData("\"stream\":true,\"stream_options\":{\"include_usage\":0}", "stream_options")]
    [InlineData("\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_usage\":false}", "stream_options")]
    [InlineData("\"stream_options\":{\"include_usage\":true},\"stream\":true,\"stream_options\":{}", "stream_options")]
    public async Task What_is_unclear_about_a_stream_is_refused(string fields, string param)
    {
        foreach (var (before, after) in ((int, int)[])[(0, 0), (5 * Mib, 0), (0, 9 * Mib), (9 * Mib, 9 * Mib), ((4 * Mib) - 60, 0), ((4 * Mib) - 20, 1)])
        {
            var body = $$"""{"model":"m","a":"{{new string('x', before)}}",{{fields}},"b":["{{new string('y', after)}}"] } """;
            foreach (var piece in (int[])[4096, 100_003])
                (await RefusedAsync(body, piece)).ShouldBe((param, "invalid_type"), $"{before} {after}");
        }
        var small = $$"""{"model":"m",{{fields}}}""";
        foreach (var piece in (int[])[1, 3, int.MaxValue])
            (await RefusedAsync(small, piece)).ShouldBe((param, "invalid_type"));
    }

    [Theory]
    [InlineData("\"stream\":true", true)]
    [InlineData("\"str\\u0065am\" :\n true ", true)]
    [InlineData("\"stream\":false", false)]
    [InlineData("\"stream\":true,\"stream_options\":{\"include_usage\":true}", false)]
    [InlineData("\"stream_options\": { \"x\":[\"}\",{}], \"include_usage\" : true } , \"stream\":true", false)]
    [InlineData("\"stream_options\":{\"include_usage\":true},\"stream\":false", false)]
    [InlineData("\"x\":{\"stream\":true}", false)]
    public async Task A_body_that_is_not_read_whole_is_asked_at_its_end(string stream, bool asks)
    {
        foreach (var (before, after) in ((int, int)[])[(5 * Mib, 10), (10, 5 * Mib), (5 * Mib, 5 * Mib), ((4 * Mib) - 60, 0), ((4 * Mib) - 20, 1)])
        {
            var body = $$"""{"model":"m","a":"{{new string('x', before)}}",{{stream}},"b":["{{new string('y', after)}}"] } """;
            foreach (var piece in (int[])[4096, 100_003])
            {
                var (sent, asked) = await SendAsync(body, piece);

                asked.ShouldBe(asks, $"{before} {after} {stream}");
                (sent == (asks ? body[..^2] + ",\"stream_options\":{\"include_usage\":true}} " : body)).ShouldBeTrue($"{before} {after} {stream}");
            }
        }
    }

    /// <summary>Engines take the last of two fields of a name.</summary>
    [Theory]
    [InlineData("{\"include_usage\":false}")]
    [InlineData("{}")]
    [InlineData("null")]
    public async Task Options_that_have_passed_are_overruled_at_the_end(string options)
    {
        foreach (var (before, after) in ((int, int)[])[(5 * Mib, 9 * Mib), (10, 9 * Mib)])
        {
            var body = $$"""{"model":"m","a":"{{new string('x', before)}}","stream":true,"stream_options":{{options}},"b":["{{new string('y', after)}}"]}""";

            var (sent, asked) = await SendAsync(body, 4096);

            asked.ShouldBeTrue();
            (sent == body[..^1] + ",\"stream_options\":{\"include_usage\":true}}").ShouldBeTrue($"{before} {after}");
        }
    }

    /// <summary>More rounds: <c>MODELHOST_FUZZ_ROUNDS</c>.</summary>
    [Fact]
    public async Task Random_bodies_keep_all_that_they_say_but_that()
    {
        var json = new RandomJson(20260903);
        var asked = 0;
        for (var round = 0; round < FuzzRounds.Of(250_000); round++)
        {
            var rest = json.Object()[1..];
            var options = json.Random.Next(4) switch { 0 => "", 1 => "\"stream_options\":{},", 2 => "\"stream_options\":{\"include_usage\":false},", _ => "\"stream_options\":null," };
            var body = $$"""{"model":"m","stream":true,{{options}}"x":1{{(rest.Trim() == "}" ? "" : ",")}}{{rest}}""";
            if (RandomJson.Models(body).Count > 1)
                continue;

            var (sent, asks) = await SendAsync(body, json.Random.Next(1, 60));

            if (!asks)
                Assert.Fail($"not asked: {body}");
            asked++;
            // parsing is slow and finds what a byte too many does; a part of the rounds is enough for what it says
            if (round % 50 > 0)
                continue;
            using var parsed = JsonDocument.Parse(sent);
            using var before = JsonDocument.Parse(body);
            parsed.RootElement.GetProperty("stream_options").GetRawText().ShouldBe("{\"include_usage\":true}");
            parsed.RootElement.EnumerateObject().Where(p => p.Name != "stream_options").Select(p => (p.Name, p.Value.GetRawText()))
                .ShouldBe(before.RootElement.EnumerateObject().Where(p => p.Name != "stream_options").Select(p => (p.Name, p.Value.GetRawText())));
        }
        asked.ShouldBeGreaterThan(1000);
    }

    private static async Task<(string? Param, string Code)> RefusedAsync(string body, int piece)
    {
        var (read, _, error) = await RequestBody.ReadAsync(
            new PieceStream(Encoding.UTF8.GetBytes(body), () => piece), null, 64 * Mib, Ct, new ModelScanner(countsOnRequest: true));
        if (error is not null)
            return (error.Param, error.Code);
        await using (read)
        {
            read!.AskForUsage();
            var refused = await Should.ThrowAsync<MalformedBodyException>(() => read.CopyToAsync(Stream.Null, Ct));
            return (refused.Error.Param, refused.Error.Code);
        }
    }

    private static async Task<(string Sent, bool Asks)> SendAsync(string body, int piece)
    {
        var (read, _, error) = await RequestBody.ReadAsync(
            new PieceStream(Encoding.UTF8.GetBytes(body), () => piece), null, 64 * Mib, Ct, new ModelScanner(countsOnRequest: true));
        error.ShouldBeNull();
        await using (read)
        {
            read!.AskForUsage();
            var length = read.KnownLength;
            using var sent = new MemoryStream();
            await read.CopyToAsync(sent, Ct);
            if (length is not null)
                sent.Length.ShouldBe(length.Value);
            return (Encoding.UTF8.GetString(sent.ToArray()), read.AsksForUsage);
        }
    }
}
