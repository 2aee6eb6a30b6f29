using System.Text;
using ModelHost.Agent.Metering;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.Metering;

public sealed class UsageScannerTests
{
    private static readonly System.Text.Json.JsonSerializerOptions Readable = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    [Theory]
    [InlineData("""{"id":"x","usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5,"prompt_tokens_details":null}}""", 7, 5)]
    [InlineData("""{"usage" : { "prompt_tokens" : 7 , "prompt_tokens_details" : { "cached_tokens" : 3, "prompt_tokens": 9 } , "completion_tokens" : 5 } }""", 7, 5)]
    [InlineData("""{"type":"response.completed","response":{"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":1},"output_tokens":5,"total_tokens":12}}}""", 7, 5)]
    [InlineData("""{"usage":{"prompt_tokens":9,"total_tokens":9},"data":[]}""", 9, 0)]
    [InlineData("""{"usage":{"total_tokens":9},"results":[]}""", 9, 0)]
    [InlineData("data: {\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}\n\ndata: {\"usage\":{\"output_tokens\":5}}\n\n", 7, 5)]
    [InlineData("data: {\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\n", 7, 5)]
    [InlineData("""{"content":"\"usage\":{\"prompt_tokens\":100}","usage":{"prompt_tokens":7,"completion_tokens":5}}""", 7, 5)]
    [InlineData("""{"a":"usage","\"usage":1,"usage":"usage","b":["usage",{"usage":{"prompt_tokens":8}}],"usage":{"prompt_tokens":7,"completion_tokens":5}}""", 7, 5)]
    [InlineData("""{"type":"message_start","message":{"content":[],"usage":{"input_tokens":7,"output_tokens":0}}} {"usage":{"output_tokens":5}}""", 7, 5)]
    [InlineData("""{"response":{"tools":[{"usage":{"input_tokens":1}}],"usage":{"input_tokens":7,"output_tokens":5},"metadata":{"usage":{"input_tokens":2}}}}""", 7, 5)]
    [InlineData("""{"usage":{"prompt_tokens":7,"completion_tokens":5},"echo":{"usage":{"prompt_tokens":0,"completion_tokens":0}},"response":[{"usage":{"prompt_tokens":0}}]}""", 7, 5)]
    [InlineData("""{"response":"usage","x":{"usage":{"prompt_tokens":0}},"usage":{"prompt_tokens":7,"completion_tokens":5}}""", 7, 5)]
    [InlineData("""{"usage":{"prompt_tokens":7,"completion_tokens":5}} and "usage":{"prompt_tokens":-1,"completion_tokens":1e99}""", 7, 5)]
    [InlineData("""{"usage":{"prompt_tokens":7,"completion_tokens":5}} and "usage":{"prompt_tokens":8,x}""", 7, 5)]
    public void The_counts_are_found_however_the_bytes_are_cut(string answer, long prompt, long completion)
    {
        var bytes = Encoding.UTF8.GetBytes(answer);
        foreach (var piece in (int[])[1, 2, 3, 5, 7, 16, int.MaxValue])
        {
            var scanner = Scan(bytes, () => piece);

            (scanner.HasUsage, scanner.PromptTokens, scanner.CompletionTokens).ShouldBe((true, prompt, completion), $"in pieces of {piece}");
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("{}")]
    [InlineData("\"usage\"")]
    [InlineData("""{"usage":null}""")]
    [InlineData("""{"usage":[{"prompt_tokens":1}]}""")]
    [InlineData("""{"usage":{"prompt_tokens":1""")]
    [InlineData("""{"usage":{"prompt_tokens":"1"}}""")]
    [InlineData("""{"usage":{"prompt_tokens":99999999999999999999}}""")]
    [InlineData("""{"usage":{"type":"duration","seconds":3}}""")]
    [InlineData("""{"tools":{"usage":{"prompt_tokens":1}}}""")]
    [InlineData("""[{"usage":{"prompt_tokens":1}}]""")]
    [InlineData("""{"x":{"response":{"usage":{"prompt_tokens":1}}}}""")]
    [InlineData("""{"response":{"x":{"usage":{"prompt_tokens":1}}}}""")]
    [InlineData("""{"x":"response","y":{"usage":{"prompt_tokens":1}}}""")]
    [InlineData("""}}}]{"u\u0073age":{"prompt_tokens":1}}""")]
    [InlineData("""{"text":"\"usage\":{\"prompt_tokens\":1}"}""")]
    public void Where_there_is_no_count_none_is_found(string answer)
    {
        foreach (var piece in (int[])[1, 3, int.MaxValue])
            Scan(Encoding.UTF8.GetBytes(answer), () => piece).HasUsage.ShouldBeFalse();
    }

    [Fact]
    public void An_endless_object_is_given_up_and_what_follows_is_read()
    {
        var bytes = Encoding.UTF8.GetBytes("{\"usage\":{\"x\":\"" + new string('x', 3 * UsageScanner.LongestObject) + "\"}} {\"usage\":{\"prompt_tokens\":7}}");

        Scan(bytes, () => 100).PromptTokens.ShouldBe(7);
        Scan(bytes, () => int.MaxValue).PromptTokens.ShouldBe(7);
    }

    /// <summary>What a model wrote is never taken for the count, wherever the bytes are cut. More rounds: <c>MODELHOST_FUZZ_ROUNDS</c>.</summary>
    [Fact]
    public void Random_answers_cut_at_random_places_are_counted_as_a_whole_reader_counts_them()
    {
        var random = new Random(20260901);
        for (var round = 0; round < FuzzRounds.Of(250_000); round++)
        {
            var (prompt, completion) = (random.Next(0, 1000), random.Next(0, 1000));
            var text = Noise(random);
            var usage = $$"""{"prompt_tokens":{{prompt}},"total_tokens":{{prompt + completion}},"completion_tokens":{{completion}}}""";
            var answer = random.Next(3) switch
            {
                0 => $$"""{"choices":[{"text":{{text}}}],"usage":{{usage}},"tail":{{Noise(random)}}}""",
                1 => $"data: {{\"choices\":[{{\"text\":{text}}}],\"usage\":null}}\n\ndata: {{\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n",
                _ => $$"""{"usage":{{usage}},"results":[{{text}},{{text}}]}""",
            };

            var scanner = Scan(Encoding.UTF8.GetBytes(answer), () => random.Next(1, 40));

            if (!scanner.HasUsage || scanner.PromptTokens != prompt || scanner.CompletionTokens != completion)
                Assert.Fail($"round {round}: {scanner.PromptTokens} {scanner.CompletionTokens} in {answer}");
        }
    }

    private static string Noise(Random random)
    {
        var pieces = (string[])["\"usage\"", "usage", "\"", "\\", ":{", "\"usage\":{\"prompt_tokens\":5}", "data: ", "\n\n", "x", "ü", "{}", "\"us"];
        return System.Text.Json.JsonSerializer.Serialize(string.Concat(Enumerable.Range(0, random.Next(6)).Select(_ => pieces[random.Next(pieces.Length)])),
            Readable);
    }

    private static UsageScanner Scan(ReadOnlySpan<byte> bytes, Func<int> piece)
    {
        var scanner = new UsageScanner();
        while (bytes.Length > 0)
        {
            var next = Math.Min(bytes.Length, piece());
            scanner.Feed(bytes[..next]);
            bytes = bytes[next..];
        }
        return scanner;
    }
}
