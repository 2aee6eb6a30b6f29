using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;
using Google.Protobuf;
using ModelHost.Protocol.Backend;
using ModelHost.TestKit;

namespace ModelHost.Tests.Gateway.Grpc;

/// <summary>Requests and replies with anything in any place: each has an answer that is none of ours going wrong, and whole JSON or events.</summary>
public sealed class AdapterFuzzTests
{
    private static readonly (string Path, string Body)[] s_requests =
    [
        ("/v1/chat/completions", """
            {"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"data:image/png;base64,aW1h"}}]},
              {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"d"}],
             "tools":[{"type":"function","function":{"name":"f","description":"g","parameters":{"type":"object","properties":{"x":{"anyOf":[{"type":"string"},{"$ref":"#/properties/x"}]}},"required":["x"]}}}],
             "tool_choice":"auto","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"array","items":{"enum":[1,"a"]}}}},
             "temperature":1,"top_p":0.5,"top_k":1,"seed":1,"stop":["x"],"max_tokens":5,"n":1,"logprobs":true,"top_logprobs":1,"logit_bias":{"1":1},"metadata":{"a":"b"},
             "chat_template_kwargs":{"enable_thinking":true},"parallel_tool_calls":true,"stream":false,"stream_options":{"include_usage":true}}
            """),
        ("/v1/completions", """{"model":"m","prompt":["a","b"],"echo":true,"suffix":"","max_tokens":5,"logprobs":1,"stream":false,"response_format":{"type":"json_object"}}"""),
        ("/v1/embeddings", """{"model":"m","input":["a",[1,2]],"encoding_format":"float","dimensions":2}"""),
        ("/v1/rerank", """{"model":"m","query":"a","documents":["a",{"text":"b"}],"top_n":1}"""),
        ("/v1/tokenize", """{"model":"m","content":"a"}"""),
        ("/v1/detokenize", """{"model":"m","tokens":[1,2]}"""),
        ("/v1/audio/speech", """{"model":"m","input":"a","voice":"v","speed":1,"params":{"a":"b"},"stream":true,"response_format":"wav"}"""),
    ];

    private static readonly string[] s_values =
    [
        "null", "true", "false", "0", "-1", "1e400", "0.5", "99999999999999999999", "\"\"", "\"x\"", "\"\\u0000\"", "\"\\ud83d\\ude00\"", "[]", "{}", "[[[]]]", "{\"type\":\"object\"}", "[null]", "[1,\"a\",{}]",
        "\"http://x/y\"", "\"data:,\"", "{\"url\":1}", "{\"function\":{\"name\":\"f\"}}", "\"json_schema\"", "{\"$ref\":\"#\"}", "{\"$ref\":\"#/a/b\"}",
    ];

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Random_requests_are_answered_or_refused(bool template)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host, defaults: new() { UseTokenizerTemplate = template });
        backend.Embed = _ => new EmbeddingResult { Embeddings = { 1, 2 } };
        backend.Rank = asked => new RerankResult { Results = { new DocumentResult { Index = asked.Documents.Count - 1 } } };
        backend.Split = _ => new TokenizationResponse { Tokens = { 1 } };
        backend.Join = _ => new() { Content = "x" };
        backend.SpeakPieces = (_, _) => TestBackend.Replies(new Reply { Audio = ByteString.CopyFrom(1) });
        var random = new Random(7);
        var answered = 0;

        for (var round = 0; round < FuzzRounds.Of(300); round++)
        {
            var (path, body) = s_requests[random.Next(s_requests.Length)];
            var mutated = Mutate(JsonNode.Parse(body)!, random).ToJsonString();
            var (status, answer) = await ChatTests.PostAsync(host, mutated, path);

            ((int)status).ShouldBeOneOf([200, 400, 404], $"round {round}: {path} {mutated}\n{answer}");
            answered += status == HttpStatusCode.OK ? 1 : 0;
            if (status != HttpStatusCode.OK)
                JsonDocument.Parse(answer).RootElement.GetProperty("error").GetProperty("message").GetString()!.Length.ShouldBeLessThan(600);
        }
        answered.ShouldBeInRange(FuzzRounds.Of(300) / 20, FuzzRounds.Of(300) * 19 / 20, "some are answered, and some refused");
    }

    [Fact]
    public async Task Random_replies_are_passed_on_or_told_as_failures()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        var random = new Random(11);
        backend.Answer = (_, _) => TestBackend.Replies([.. Enumerable.Range(0, random.Next(5)).Select(_ => RandomReply(random))]);
        const string Request = """{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f"}}],"logprobs":true""";

        for (var round = 0; round < FuzzRounds.Of(200); round++)
        {
            var (whole, answer) = await ChatTests.PostAsync(host, Request + "}");
            whole.ShouldBe(HttpStatusCode.OK, answer);
            var choice = JsonDocument.Parse(answer).RootElement.GetProperty("choices")[0];
            choice.GetProperty("message").TryGetProperty("content", out _).ShouldBeTrue();

            var (stream, events) = await ChatTests.PostAsync(host, Request + ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
            stream.ShouldBe(HttpStatusCode.OK);
            events.ShouldEndWith("\n\ndata: [DONE]\n\n");
            foreach (var line in events.Split("\n\n", StringSplitOptions.RemoveEmptyEntries).SkipLast(1))
                JsonDocument.Parse(line["data: ".Length..]).RootElement.GetProperty("choices").ValueKind.ShouldBe(JsonValueKind.Array);
        }
        var usage = (await host.Client.JsonAsync("/api/usage")).GetProperty("total");
        usage.GetProperty("prompt_tokens").GetInt64().ShouldBeGreaterThanOrEqualTo(0);
    }

    private static Reply RandomReply(Random random)
    {
        var bytes = new byte[random.Next(8)];
        random.NextBytes(bytes);
        string Text() => s_values[random.Next(s_values.Length)];
        int Number() => random.Next(4) switch { 0 => int.MinValue, 1 => int.MaxValue, 2 => -1, _ => random.Next(10) };
        var reply = new Reply
        {
            Message = random.Next(2) == 0 ? ByteString.CopyFrom(bytes) : ByteString.CopyFromUtf8(Text()),
            Tokens = Number(),
            PromptTokens = Number(),
            TimingPromptProcessing = random.Next(3) switch { 0 => double.NaN, 1 => -1, _ => double.PositiveInfinity },
            Logprobs = ByteString.CopyFromUtf8(Text()),
        };
        for (var i = random.Next(3); i > 0; i--)
        {
            var delta = new ChatDelta { Content = Text(), ReasoningContent = random.Next(2) == 0 ? "" : Text() };
            for (var j = random.Next(3); j > 0; j--)
                delta.ToolCalls.Add(new ToolCallDelta { Index = Number(), Id = random.Next(2) == 0 ? "" : Text(), Name = random.Next(2) == 0 ? "" : "f", Arguments = Text() });
            reply.ChatDeltas.Add(delta);
        }
        return reply;
    }

    /// <summary>Replaces, removes or adds something somewhere, once or several times; the model stays.</summary>
    private static JsonNode Mutate(JsonNode node, Random random)
    {
        for (var times = random.Next(1, 4); times > 0; times--)
        {
            var at = node;
            while (true)
            {
                if (at is JsonObject fields && fields.Count > 0)
                {
                    var name = fields.ElementAt(random.Next(fields.Count)).Key;
                    if (at == node && name == "model")
                        break;
                    if (fields[name] is JsonObject or JsonArray && random.Next(3) > 0)
                    {
                        at = fields[name]!;
                        continue;
                    }
                    if (random.Next(8) == 0)
                        fields.Remove(name);
                    else
                        fields[name] = Value(random);
                }
                else if (at is JsonArray items && items.Count > 0)
                {
                    var index = random.Next(items.Count);
                    if (items[index] is JsonObject or JsonArray && random.Next(3) > 0)
                    {
                        at = items[index]!;
                        continue;
                    }
                    items[index] = Value(random);
                }
                break;
            }
        }
        return node;
    }

    private static JsonNode? Value(Random random) => JsonNode.Parse(s_values[random.Next(s_values.Length)]);
}
