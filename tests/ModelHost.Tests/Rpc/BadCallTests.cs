using System.Net;
using Google.Protobuf;
using ModelHost.Rpc;
using ModelHost.TestKit;

namespace ModelHost.Tests.Rpc;

/// <summary>What a server of ours makes of calls that are broken on purpose.</summary>
public sealed class BadCallTests
{
    [Fact]
    public async Task Broken_bodies_end_with_a_status_and_the_server_goes_on()
    {
        await using var server = await EchoServer.StartAsync(maxMessageBytes: 1 << 20);
        using var raw = new RawCall(server.Address);
        var good = RawCall.Frame(Echo.Of("x"));
        foreach (var (what, body, encoding, status) in ((string, byte[], string?, string)[])
            [
                ("nothing", [], null, "13"),
                ("half a head", [0, 0], null, "13"),
                ("half a message", good[..^1], null, "13"),
                ("a head alone", RawCall.Frame(0, [], 100), null, "13"),
                ("a length over the limit", RawCall.Frame(0, [1], (1 << 20) + 1), null, "8"),
                ("the largest length there is", RawCall.Frame(0, [1], uint.MaxValue), null, "8"),
                ("marked as compressed, without an encoding", RawCall.Frame(1, good[5..]), null, "13"),
                ("marked as compressed, not compressed", RawCall.Frame(1, good[5..]), "identity", "13"),
                ("no gzip", RawCall.Frame(1, [1, 2, 3]), "gzip", "13"),
                ("an unknown flag", RawCall.Frame(7, good[5..]), null, "13"),
                ("an unknown encoding", good, "zstd", "12"),
                ("no message of this type", RawCall.Frame(0, [0x0a, 0x7f]), null, "13"),
                ("a tag of no kind", RawCall.Frame(0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), null, "13"),
                ("two messages", [.. good, .. good], null, "13"),
                ("a message and more", [.. good, 0], null, "13"),
                ("little that unpacks to much", RawCall.Frame(1, RawCall.Zip(new byte[64 << 20])), "gzip", "8"),
                ("gzip", RawCall.Frame(1, RawCall.Zip(Echo.Of("x").ToByteArray())), "gzip", "0"),
                ("no gzip where it may be", good, "gzip", "0"),
                ("as it should be", good, null, "0"),
            ])
        {
            var answer = await raw.SendAsync(Echo.Say.Path, body, encoding is null ? [] : [("grpc-encoding", encoding)]);

            (answer.Http, answer.Status).ShouldBe((HttpStatusCode.OK, status), what + ": " + answer.Message);
            answer.Headers.ShouldContain("grpc-accept-encoding");
        }
    }

    [Theory]
    [InlineData("1H", "0")]
    [InlineData("99999999H", "0")]
    [InlineData("1000000000n", "0")]
    [InlineData("x", "13")]
    [InlineData("10", "13")]
    [InlineData("10d", "13")]
    [InlineData("-1S", "13")]
    [InlineData(" 1S", "13")]
    [InlineData("1.5S", "13")]
    [InlineData("123456789S", "13")]
    [InlineData("0n", "4")]
    public async Task Deadline_is_read_as_the_protocol_writes_it(string timeout, string status)
    {
        await using var server = await EchoServer.StartAsync();
        using var raw = new RawCall(server.Address);

        // a number of ten digits is over the eight that are allowed
        (await raw.SendAsync(Echo.Say.Path, RawCall.Frame(Echo.Of("x")), ("grpc-timeout", timeout))).Status.ShouldBe(timeout == "1000000000n" ? "13" : status);
    }

    [Theory]
    [InlineData("application/grpc", HttpStatusCode.OK)]
    [InlineData("application/grpc+proto", HttpStatusCode.OK)]
    [InlineData("application/grpc; charset=utf-8", HttpStatusCode.OK)]
    [InlineData("application/grpc+json", HttpStatusCode.UnsupportedMediaType)]
    [InlineData("application/grpc-web", HttpStatusCode.UnsupportedMediaType)]
    [InlineData("application/json", HttpStatusCode.UnsupportedMediaType)]
    [InlineData("", HttpStatusCode.UnsupportedMediaType)]
    public async Task What_is_no_call_gets_no_answer_of_one(string contentType, HttpStatusCode status)
    {
        await using var server = await EchoServer.StartAsync();
        using var raw = new RawCall(server.Address);

        (await raw.SendAsync(Echo.Say.Path, RawCall.Frame(Echo.Of("x")), ("content-type", contentType))).Http.ShouldBe(status);
    }

    [Fact]
    public async Task Early_status_stands_in_the_headers_and_a_late_one_in_the_trailers()
    {
        await using var server = await EchoServer.StartAsync();
        using var raw = new RawCall(server.Address);

        var early = await raw.SendAsync(Echo.Say.Path, RawCall.Frame(Echo.Of("fail NotFound a b")));
        var late = await raw.SendAsync(Echo.Count.Path, RawCall.Frame(Echo.Of("1!")));

        early.Headers.ShouldContain("grpc-status");
        (early.Status, early.Message, early.Body.Length).ShouldBe(("5", "a b", 0));
        late.Headers.ShouldNotContain("grpc-status");
        (late.Status, late.Message).ShouldBe(("15", "the rest is gone"));
        late.Body.ShouldBe(RawCall.Frame(Echo.Of("0")));
    }

    [Theory]
    [InlineData("", "")]
    [InlineData("plain text.", "plain text.")]
    [InlineData("50%", "50%25")]
    [InlineData("a\nb", "a%0Ab")]
    [InlineData("ö", "%C3%B6")]
    public void Messages_are_percent_encoded(string text, string encoded)
    {
        RpcHeaders.EncodeMessage(text).ShouldBe(encoded);
        RpcHeaders.DecodeMessage(encoded).ShouldBe(text);
    }

    [Fact]
    public void Half_a_character_is_replaced() => RpcHeaders.EncodeMessage("a\ud800").ShouldBe("a%EF%BF%BD");

    [Theory]
    [InlineData("%")]
    [InlineData("%zz")]
    [InlineData("%C3")]
    [InlineData("100%")]
    public void Wrong_encoding_does_not_lose_the_message(string encoded) => RpcHeaders.DecodeMessage(encoded).ShouldNotBeEmpty();

    [Theory]
    [InlineData(0.0001, "1m")]
    [InlineData(1, "1m")]
    [InlineData(1500, "1500m")]
    [InlineData(99_999_999, "99999999m")]
    [InlineData(100_000_000, "100000S")]
    [InlineData(1e12, "2073600S")]
    public void Deadlines_are_written_with_at_most_eight_digits(double milliseconds, string header) =>
        RpcHeaders.FormatTimeout(TimeSpan.FromMilliseconds(milliseconds)).ShouldBe(header);
}
