using System.Text;
using System.Text.Json;
using ModelHost.Agent.Http;
using ModelHost.Agent.Metering;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.Metering;

public sealed class RequestBodyTests
{
    private const int Mib = 1024 * 1024;
    private const int MaxModelOffset = 64 * Mib;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("""{"model":"m"}""", "m")]
    [InlineData(""" { "messages" : [ { "model" : "x" } ] , "model" : "org/m" } """, "org/m")]
    [InlineData("""{"mod\u0065l":"m"}""", "m")]
    [InlineData("""{"model":"\u006d\n\"ü日"}""", "m\n\"ü日")]
    [InlineData("""{"Model":"a","model":"m","MODEL":"b"}""", "m")]
    [InlineData("""{"nested":{"model":"a"},"list":["model","a"],"text":"\"model\":\"a\"","model":"m"}""", "m")]
    [InlineData("\r\n\t{\"model\":\"m\"}\r\n", "m")]
    public async Task The_model_is_the_field_of_the_outermost_object(string json, string model)
    {
        foreach (var piece in (int[])[1, 2, 3, 7, int.MaxValue])
        {
            var (found, served) = await ReadAsync(Bytes(json), () => piece);

            found.ShouldBe(model);
            served.ShouldBe(Bytes(json));
        }
    }

    [Theory]
    [InlineData("[]")]
    [InlineData("[{\"model\":\"m\"}]")]
    [InlineData("7")]
    [InlineData("\"model\"")]
    [InlineData("null")]
    [InlineData("{}")]
    [InlineData("""{"x":{"model":"m"}}""")]
    [InlineData("""{"model":""}""")]
    [InlineData("""{"model":7}""")]
    [InlineData("""{"model":null}""")]
    [InlineData("""{"model":["m"]}""")]
    [InlineData("""{"model":{"model":"m"}}""")]
    public Task A_body_without_a_model_is_refused(string json) => RefusedAsync(Bytes(json), 400, "missing_model", "model");

    [Theory]
    [InlineData("""{"model":"a","model":"a"}""")]
    [InlineData("""{"model":"a","x":[{"y":"z"}],"mod\u0065l":"b"}""")]
    [InlineData("""{"\u006d\u006F\u0064\u0065\u006c":"a","model":"b"}""")]
    [InlineData("""{"model":"a","model":7}""")]
    public Task A_body_with_two_models_is_refused(string json) => RefusedAsync(Bytes(json), 400, "invalid_json", "model");

    [Theory]
    [InlineData("")]
    [InlineData(" ")]
    [InlineData("{")]
    [InlineData("""{"model":"m" """)]
    [InlineData("""{"model":"m","x":"y""")]
    [InlineData("""{"model":"m","x":tru""")]
    [InlineData("""{"model":"m"}{"model":"n"}""")]
    [InlineData("""{"model":"m"}x""")]
    [InlineData("""{"model":"m",}""")]
    [InlineData("""{'model':'m'}""")]
    [InlineData("""{"model":"m"/* c */}""")]
    [InlineData("{\"model\":\"a\nb\"}")]
    [InlineData("""{"model":"\ud800"}""")]
    [InlineData("""{"model":"\x"}""")]
    [InlineData("""{"model":01}""")]
    [InlineData("\uFEFF{\"model\":\"m\"}")]
    [InlineData("model=m")]
    public async Task A_body_that_is_not_json_is_refused(string text)
    {
        foreach (var piece in (int[])[1, 3, int.MaxValue])
            await RefusedAsync(Bytes(text), 400, "invalid_json", null, () => piece);
    }

    [Fact]
    public async Task A_body_that_is_not_utf8_is_refused()
    {
        const string Json = """{"model":"m"}""";

        await RefusedAsync(Encoding.Unicode.GetBytes(Json), 400, "invalid_json", null);
        await RefusedAsync(Encoding.BigEndianUnicode.GetBytes(Json), 400, "invalid_json", null);
        await RefusedAsync([0xFF, 0xFE, .. Encoding.Unicode.GetBytes(Json)], 400, "invalid_json", null);
        await RefusedAsync([.. Bytes("{\"model\":\""), 0xC3, 0x28, .. Bytes("\"}")], 400, "invalid_json", null);
    }

    [Fact]
    public async Task Nesting_is_bounded()
    {
        await RefusedAsync(Bytes("{\"model\":\"m\",\"x\":" + new string('[', 64) + new string(']', 64) + "}"), 400, "invalid_json", null);
        await RefusedAsync(Bytes(new string('[', 100_000)), 400, "missing_model", "model");
        (await ReadAsync(Bytes("{\"model\":\"m\",\"x\":" + new string('[', 60) + new string(']', 60) + "}"), () => 17)).Model.ShouldBe("m");
    }

    [Fact]
    public Task A_model_name_is_bounded() => RefusedAsync(Bytes($$"""{"model":"{{new string('m', 600)}}"}"""), 400, "missing_model", "model");

    [Theory]
    [InlineData(400 * 1024)]
    [InlineData((4 * Mib) - 16)]
    [InlineData(4 * Mib)]
    [InlineData(5 * Mib)]
    [InlineData(20 * Mib)]
    public async Task A_model_behind_a_long_text_is_found(int length)
    {
        var json = Bytes($$"""{"prompt":"{{new string('x', length)}}","model":"m","more":"{{new string('y', 100)}}"}""");

        var (model, served) = await ReadAsync(json, () => 16 * 1024);

        model.ShouldBe("m");
        served.AsSpan().SequenceEqual(json).ShouldBeTrue();
    }

    [Theory]
    [InlineData(400 * 1024)]
    [InlineData(5 * Mib)]
    [InlineData(20 * Mib)]
    public async Task A_long_text_behind_the_model_passes_as_it_came(int length)
    {
        var json = Bytes($$"""{"model":"m","prompt":"{{new string('x', length)}}","tail":[1,{"model":"n"}]}""");

        var (model, served) = await ReadAsync(json, () => 64 * 1024);

        model.ShouldBe("m");
        served.AsSpan().SequenceEqual(json).ShouldBeTrue();
    }

    [Theory]
    [InlineData("\"model\"")]
    [InlineData("\"mod\\u0065l\"")]
    [InlineData("\"\\u006d\\u006F\\u0064\\u0065\\u006c\"")]
    [InlineData(" \n\t\"model\"  ")]
    public async Task A_second_model_that_comes_late_in_a_large_body_is_refused(string key)
    {
        foreach (var (before, after) in ((int, int)[])[(10, 6 * Mib), (10, 20 * Mib), (5 * Mib, 10), (5 * Mib, 5 * Mib), ((4 * Mib) - 30, 0)])
        {
            var json = Bytes($$"""{"a":"{{new string('x', before)}}","model":"m","b":["{{new string('y', after)}}"],{{key}}:"n"}""");

            var refusal = await RefusalAsync(json);

            refusal.ShouldNotBeNull($"{before} {after} {key}").Message.ShouldBe("The request body has the field 'model' more than once.");
        }
    }

    [Fact]
    public async Task A_model_beyond_the_limit_is_refused_as_too_large()
    {
        var late = Bytes($$"""{"prompt":"{{new string('x', 300_000)}}","model":"m"}""");
        var none = Bytes($$"""{"prompt":"{{new string('x', 900_000)}}","list":[{{string.Join(',', Enumerable.Range(0, 50_000))}}]}""");

        await RefusedAsync(late, 413, "request_too_large", null, () => 16 * 1024, maxModelOffset: 100_000);
        await RefusedAsync(none, 413, "request_too_large", null, () => 16 * 1024, maxModelOffset: 100_000);
        (await ReadAsync(late, () => 16 * 1024, maxModelOffset: 400_000)).Model.ShouldBe("m");
    }

    [Fact]
    public async Task The_limit_is_for_the_model_and_not_for_the_body()
    {
        var json = Bytes($$"""{"model":"m","prompt":"{{new string('x', 300_000)}}"}""");

        var (model, served) = await ReadAsync(json, () => 16 * 1024, maxModelOffset: 100_000);

        model.ShouldBe("m");
        served.AsSpan().SequenceEqual(json).ShouldBeTrue();
    }

    [Fact]
    public async Task No_more_is_kept_of_a_body_without_a_model_than_the_limit_and_a_piece()
    {
        var taken = 0;
        var endless = new PieceStream(Bytes($$"""{"prompt":"{{new string('x', 5 * Mib)}}"}"""), () => { taken += 1000; return 1000; });

        var (_, status, _) = await RequestBody.ReadAsync(endless, null, 600_000, Ct);

        status.ShouldBe(413);
        taken.ShouldBeInRange(600_000, 620_000);
    }

    /// <summary>More rounds: <c>MODELHOST_FUZZ_ROUNDS</c>.</summary>
    [Fact]
    public async Task Random_bodies_cut_at_random_places_are_read_as_a_whole_reader_reads_them()
    {
        var json = new RandomJson(20260301);
        var kinds = new HashSet<string>();
        for (var round = 0; round < FuzzRounds.Of(250_000); round++)
        {
            var text = json.Object();
            var models = RandomJson.Models(text);
            var expected = models switch
            {
                [{ ValueKind: JsonValueKind.String } model, ..] when model.GetString()!.Length > 0 => models.Count > 1 ? "invalid_json" : "model " + model.GetString(),
                _ => "missing_model",
            };
            var bytes = Bytes(text);

            var (body, error) = await ReadOrRefuseAsync(bytes, () => json.Random.Next(1, 9));

            (error?.Code ?? "model " + body.Model).ShouldBe(expected, text);
            if (error is null)
                body.Served.ShouldBe(bytes, text);
            kinds.Add(expected.Split(' ')[0]);
        }
        kinds.ShouldBe(["invalid_json", "model", "missing_model"], ignoreOrder: true);
    }

    private static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);

    private static async Task RefusedAsync(byte[] body, int status, string code, string? param, Func<int>? piece = null, int maxModelOffset = MaxModelOffset)
    {
        var (read, answered, error) = await RequestBody.ReadAsync(new PieceStream(body, piece ?? (() => int.MaxValue)), body.Length, maxModelOffset, Ct);

        read.ShouldBeNull();
        (answered, error!.Code, error.Param).ShouldBe((status, code, param), Encoding.UTF8.GetString(body.AsSpan(0, Math.Min(100, body.Length))));
    }

    /// <summary>How a body is refused, at once or after its forwarding has begun; null: it is not.</summary>
    private static async Task<OpenAiError?> RefusalAsync(byte[] body)
    {
        try
        {
            return (await ReadOrRefuseAsync(body, () => 100_003)).Error;
        }
        catch (MalformedBodyException e)
        {
            return e.Error;
        }
    }

    private static async Task<(string Model, byte[] Served)> ReadAsync(byte[] body, Func<int> piece, int maxModelOffset = MaxModelOffset)
    {
        var (read, error) = await ReadOrRefuseAsync(body, piece, maxModelOffset);
        error.ShouldBeNull();
        return read;
    }

    private static async Task<((string Model, byte[] Served) Body, OpenAiError? Error)> ReadOrRefuseAsync(byte[] body, Func<int> piece, int maxModelOffset = MaxModelOffset)
    {
        var (read, _, error) = await RequestBody.ReadAsync(new PieceStream(body, piece), null, maxModelOffset, Ct);
        if (read is null)
            return (default, error);
        await using (read)
        {
            var served = new MemoryStream();
            var buffer = new byte[65_537];
            int count;
            while ((count = await read.ReadAsync(buffer, Ct)) > 0)
                served.Write(buffer, 0, count);
            return ((read.Model, served.ToArray()), null);
        }
    }
}
