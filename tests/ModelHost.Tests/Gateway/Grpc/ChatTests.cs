using System.Net;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Google.Protobuf;
using ModelHost.Core.Routing;
using ModelHost.Protocol.Backend;
using ModelHost.TestKit;

namespace ModelHost.Tests.Gateway.Grpc;

/// <summary>Chats and texts by way of a gRPC backend: what it is asked, and what its clients get.</summary>
public sealed partial class ChatTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_chat_becomes_messages_for_the_models_own_template()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);

        var (status, answer) = await PostAsync(host, """
            {"model":"m","messages":[
              {"role":"system","content":"Be brief."},
              {"role":"user","content":[{"type":"text","text":"What is "},{"type":"text","text":"this?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,aW1hZ2U="}},
                {"type":"input_audio","input_audio":{"data":"c291bmQ=","format":"wav"}}]},
              {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{}"}}],"reasoning_content":"hm"},
              {"role":"tool","tool_call_id":"c1","name":"look","content":"a cat"}],
             "temperature":0.5,"top_p":0.25,"top_k":7,"min_p":0.125,"presence_penalty":1,"frequency_penalty":-1,"seed":42,"stop":["END","\n\n"],"max_tokens":9,"max_completion_tokens":5,
             "logit_bias":{"50256":-100},"logprobs":true,"top_logprobs":2,"metadata":{"trace":"t","enable_thinking":"true"},"reasoning_effort":"Low",
             "chat_template_kwargs":{"enable_thinking":false}}
            """);

        status.ShouldBe(HttpStatusCode.OK);
        var asked = backend.Prediction;
        asked.Messages.Select(message => (message.Role, message.Content)).ShouldBe([("system", "Be brief."), ("user", "What is this?"), ("assistant", ""), ("tool", "a cat")]);
        (asked.Prompt, asked.UseTokenizerTemplate, asked.Grammar).ShouldBe(("", true, ""));
        asked.Messages[2].ToolCalls.ShouldBe("""[{"id":"c1","type":"function","function":{"name":"look","arguments":"{}"}}]""");
        (asked.Messages[2].ReasoningContent, asked.Messages[3].ToolCallId, asked.Messages[3].Name).ShouldBe(("hm", "c1", "look"));
        (asked.Images, asked.Audios).ShouldBe(([.. new[] { "aW1hZ2U=" }], [.. new[] { "c291bmQ=" }]));
        (asked.Temperature, asked.TopP, asked.TopK, asked.MinP, asked.PresencePenalty, asked.FrequencyPenalty).ShouldBe((0.5f, 0.25f, 7, 0.125f, 1f, -1f));
        (asked.Seed, asked.Tokens, asked.Logprobs, asked.TopLogprobs, asked.ModelIdentity).ShouldBe((42, 5, 1, 2, "org/model"));
        asked.StopPrompts.ShouldBe(["END", "\n\n"]);
        asked.LogitBias.ShouldBe("""{"50256":-100}""");
        asked.Metadata.ShouldBe(new Dictionary<string, string>
        {
            ["trace"] = "t",
            ["enable_thinking"] = "false",
            ["reasoning_effort"] = "low",
            ["chat_template_kwargs"] = """{"enable_thinking":false}""",
        }, ignoreOrder: true);
        answer.ShouldBe("""
            {"created":0,"object":"chat.completion","id":"ID","model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Hello there"}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}
            """.Trim());
    }

    [Fact]
    public async Task What_a_request_does_not_say_is_as_LocalAI_has_it()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);

        await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}]}""");
        var first = backend.Prediction;
        await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}],"seed":-1}""");

        (first.Temperature, first.TopP, first.TopK, first.MinP, first.TypicalP, first.TailFreeSamplingZ).ShouldBe((0.9f, 0.95f, 0, 0f, 1f, 1f));
        (first.Mirostat, first.MirostatETA, first.MirostatTAU, first.Tokens, first.PromptCacheAll).ShouldBe((0, 0.1f, 5f, 0, true));
        first.Seed.ShouldNotBe(backend.Prediction.Seed, "each request has a seed of its own");
    }

    [Fact]
    public async Task A_deployment_has_defaults_of_its_own()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host, defaults: new GenerationDefaults
        {
            Temperature = 0.1f,
            TopK = 40,
            MaxTokens = 2,
            Seed = 5,
            SystemPrompt = "You are kind.",
            StopWordsJson = """["</s>"]""",
        });

        var (_, answer) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}],"stop":"END"}""");
        var asked = backend.Prediction;

        (asked.Temperature, asked.TopK, asked.Tokens, asked.Seed).ShouldBe((0.1f, 40, 2, 5));
        asked.StopPrompts.ShouldBe(["</s>", "END"]);
        asked.Messages.Select(message => message.Content).ShouldBe(["You are kind.", "x"]);
        answer.ShouldContain("\"finish_reason\":\"length\"", customMessage: "two tokens were allowed, and two came");
    }

    [Fact]
    public async Task Without_a_template_of_its_own_a_model_gets_a_plain_prompt_and_a_grammar_for_calls()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host, defaults: new GenerationDefaults { UseTokenizerTemplate = false });
        backend.Answer = (_, _) => TestBackend.Replies(TestBackend.Piece("""{"name": "weather", "arguments": {"city": "Oslo"}}""", tokens: 9));

        var (_, answer) = await PostAsync(host, """
            {"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Weather?"}],
             "tools":[{"type":"function","function":{"name":"weather","description":"Tells the weather.","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]}
            """);
        var asked = backend.Prediction;

        (asked.UseTokenizerTemplate, asked.Messages.Count).ShouldBe((false, 0));
        asked.Prompt.ShouldStartWith("system: These functions can be called");
        asked.Prompt.ShouldContain("- weather: Tells the weather. Arguments: {\"type\":\"object\"");
        asked.Prompt.ShouldEndWith("system: Be brief.\nuser: Weather?\nassistant:");
        asked.StopPrompts.ShouldBe(["\nuser:"]);
        asked.Grammar.ShouldStartWith("root ::= call | \"[\" space call");
        asked.Grammar.ShouldContain("\"\\\"weather\\\"\"");
        asked.Grammar.ShouldContain("\"\\\"answer\\\"\"");
        Regex.Replace(answer, "call_[0-9a-f]{32}", "CALL").ShouldBe("""
            {"created":0,"object":"chat.completion","id":"ID","model":"m","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"CALL","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Oslo\"}"}}]}}],"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12}}
            """.Trim());
    }

    [Fact]
    public async Task Tools_and_the_choice_among_them_go_to_the_backend_as_they_came()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        const string Tools = """[{"type":"function","function":{"name":"f"}}]""";

        await PostAsync(host, $$"""{"model":"m","messages":[{"role":"user","content":"x"}],"tool_choice":{"type":"function","function":{"name":"f"} },"tools":{{Tools}}}""");
        var chosen = backend.Prediction;
        await PostAsync(host, $$"""{"model":"m","messages":[{"role":"user","content":"x"}],"tools":{{Tools}},"tool_choice":"required"}""");
        var required = backend.Prediction;
        await PostAsync(host, $$"""{"model":"m","messages":[{"role":"user","content":"x"}],"tools":{{Tools}},"tool_choice":"none"}""");
        var none = backend.Prediction;

        (chosen.Tools, chosen.ToolChoice, chosen.Grammar).ShouldBe((Tools, """{"type":"function","function":{"name":"f"} }""", ""));
        required.ToolChoice.ShouldBe("\"required\"");
        (none.Tools, none.ToolChoice).ShouldBe(("", ""));
    }

    [Fact]
    public async Task Calls_that_a_backend_tells_apart_are_passed_on()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, _) => TestBackend.Replies(
            new Reply { PromptTokens = 4, Tokens = 1, Message = ByteString.CopyFromUtf8("<raw>"), ChatDeltas = { new ChatDelta { ReasoningContent = "think" } } },
            new Reply { Tokens = 2, ChatDeltas = { new ChatDelta { Content = "I look. " } } },
            new Reply { Tokens = 3, ChatDeltas = { new ChatDelta { ToolCalls = { new ToolCallDelta { Index = 0, Id = "abc", Name = "look", Arguments = "{\"at\":" } } } } },
            new Reply { Tokens = 4, Message = ByteString.CopyFromUtf8("</raw>"), ChatDeltas = { new ChatDelta { ToolCalls = { new ToolCallDelta { Index = 0, Arguments = "1}" } } } } });
        const string Request = """{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"look"}}]""";

        var (_, whole) = await PostAsync(host, Request + "}");
        var (_, stream) = await PostAsync(host, Request + ""","stream":true,"stream_options":{"include_usage":true}}""");

        whole.ShouldBe("""
            {"created":0,"object":"chat.completion","id":"ID","model":"m","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":"I look. ","reasoning":"think","tool_calls":[{"index":0,"id":"abc","type":"function","function":{"name":"look","arguments":"{\"at\":1}"}}]}}],"usage":{"prompt_tokens":4,"completion_tokens":4,"total_tokens":8}}
            """.Trim());
        Deltas(stream).ShouldBe([
            """{"role":"assistant","content":null}""",
            """{"reasoning":"think"}""",
            """{"content":"I look. "}""",
            """{"tool_calls":[{"index":0,"id":"abc","type":"function","function":{"name":"look","arguments":"{\"at\":"}}]}""",
            """{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}""",
            "{} tool_calls",
            """[] {"prompt_tokens":4,"completion_tokens":4,"total_tokens":8}""",
        ]);
        stream.ShouldEndWith("\n\ndata: [DONE]\n\n");
    }

    [Fact]
    public async Task A_whole_answer_whose_parts_are_empty_is_its_text()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, _) => TestBackend.Replies(new Reply { Message = ByteString.CopyFromUtf8("text"), ChatDeltas = { new ChatDelta() } });

        var (_, answer) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}]}""");

        answer.ShouldContain("\"content\":\"text\"");
    }

    [Fact]
    public async Task A_character_that_is_cut_between_replies_comes_whole()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        var bytes = Encoding.UTF8.GetBytes("a😀é");
        backend.Answer = (_, _) => TestBackend.Replies([.. bytes.Select((b, i) => new Reply { Message = ByteString.CopyFrom(b), Tokens = i + 1 }), new Reply { Message = ByteString.CopyFrom(0xC3), Tokens = 8 }]);

        var (_, stream) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}""");
        var (_, whole) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}]}""");

        Deltas(stream).Skip(1).SkipLast(1).Select(delta => JsonDocument.Parse(delta).RootElement.GetProperty("content").GetString()).ShouldBe(["a", "😀", "é", "\uFFFD"]);
        JsonDocument.Parse(whole).RootElement.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString().ShouldBe("a😀é\uFFFD");
    }

    [Theory]
    [InlineData("""{"name":"f","arguments":{"a":1}}""", """{"tool_calls":[{"index":0,"id":"CALL","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}|{} tool_calls""")]
    [InlineData("<tool_call>\n{\"name\":\"f\",\"arguments\":{}}\n</tool_call>", """{"tool_calls":[{"index":0,"id":"CALL","type":"function","function":{"name":"f","arguments":"{}"}}]}|{} tool_calls""")]
    [InlineData("""{"name":"answer","arguments":{"message":"No."}}""", """{"content":"No."}|{} stop""")]
    [InlineData("{ this is no call }", """{"content":"{ this is no call }"}|{} stop""")]
    [InlineData("Plain text", """{"content":"Plai"}|{"content":"n te"}|{"content":"xt"}|{} stop""")]
    public async Task Calls_written_as_text_are_read_out_of_it_and_other_text_comes_at_once(string text, string deltas)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, _) => TestBackend.Replies([.. text.Chunk(4).Select((piece, i) => TestBackend.Piece(new string(piece), i + 1))]);

        var (_, stream) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"tools":[{"type":"function","function":{"name":"f"}}]}""");

        Deltas(Regex.Replace(stream, "call_[0-9a-f]{32}", "CALL")).ShouldBe(["""{"role":"assistant","content":null}""", .. deltas.Split('|')]);
    }

    [Fact]
    public async Task The_older_form_of_functions_is_answered_in_it()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, _) => TestBackend.Replies(TestBackend.Piece("""{"name":"f","arguments":{"a":1}}"""));
        const string Request = """{"model":"m","messages":[{"role":"user","content":"x"}],"functions":[{"name":"f","parameters":{"type":"object"}}],"function_call":{"name":"f"}""";

        var (_, whole) = await PostAsync(host, Request + "}");
        var (_, stream) = await PostAsync(host, Request + ",\"stream\":true}");

        backend.Prediction.Tools.ShouldBe("""[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]""");
        whole.ShouldContain("""{"index":0,"finish_reason":"function_call","message":{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{\"a\":1}"}}}""");
        Deltas(stream).ShouldBe(["""{"role":"assistant","content":null}""", """{"function_call":{"name":"f","arguments":"{\"a\":1}"}}""", "{} function_call"]);
    }

    [Fact]
    public async Task Several_choices_are_several_answers_with_seeds_of_their_own()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);

        var (_, answer) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}],"n":3,"seed":1}""");

        backend.Asked.OfType<PredictOptions>().Select(asked => asked.Seed).ShouldBe([1, 2, 3]);
        JsonDocument.Parse(answer).RootElement.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("index").GetInt32()).ShouldBe([0, 1, 2]);
        answer.ShouldContain("""{"prompt_tokens":9,"completion_tokens":6,"total_tokens":15}""");
    }

    [Fact]
    public async Task An_answer_of_nothing_is_asked_for_again_up_to_five_times()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        var left = 2;
        backend.Answer = (_, _) => left-- > 0 ? TestBackend.Replies(new Reply()) : TestBackend.Replies(TestBackend.Piece("at last"));
        var (_, answer) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}]}""");
        var asked = backend.Asked.Count;
        left = 100;
        var (_, empty) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}]}""");

        answer.ShouldContain("at last");
        asked.ShouldBe(3);
        empty.ShouldContain("\"content\":\"\"");
        backend.Asked.Count.ShouldBe(9);
    }

    [Fact]
    public async Task Likelihoods_and_times_are_told_to_those_who_ask()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (_, _) => TestBackend.Replies(new Reply
        {
            Message = ByteString.CopyFromUtf8("x"),
            Tokens = 1,
            TimingPromptProcessing = 1.5,
            TimingTokenGeneration = 2.5,
            Logprobs = ByteString.CopyFromUtf8("""{"content":[{"token":"x","logprob":-0.5}]}"""),
        });
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions")
        {
            Content = new StringContent("""{"model":"m","messages":[{"role":"user","content":"x"}],"logprobs":true}""", Encoding.UTF8, "application/json"),
            Headers = { { "Extra-Usage", "1" } },
        };
        using var answer = await host.Client.SendAsync(request, Ct);
        var (_, stream) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}],"logprobs":true,"stream":true}""");
        var (_, plain) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"x"}]}""");

        var text = await answer.Content.ReadAsStringAsync(Ct);
        text.ShouldContain("""}},"logprobs":{"content":[{"token":"x","logprob":-0.5}]}}]""".Replace("}},", "},", StringComparison.Ordinal));
        text.ShouldContain("\"timing_prompt_processing\":1.5,\"timing_token_generation\":2.5");
        stream.ShouldContain("\"delta\":{\"content\":\"x\"},\"logprobs\":{\"content\":[{\"token\":\"x\",\"logprob\":-0.5}]}}");
        plain.ShouldNotContain("logprob");
        plain.ShouldNotContain("timing");
    }

    [Fact]
    public async Task Texts_are_completed_whole_in_order_and_in_pieces()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Answer = (asked, _) => TestBackend.Replies(TestBackend.Piece(asked.Prompt + "!"));

        var (_, whole) = await PostAsync(host, """{"model":"m","prompt":["a","b"],"echo":true,"response_format":{"type":"json_object"}}""", "/v1/completions");
        backend.Prediction.Grammar.ShouldStartWith("root ::= object\n");
        var (_, stream) = await PostAsync(host, """{"model":"m","prompt":"a","stream":true,"max_tokens":1,"stream_options":{"include_usage":true}}""", "/v1/completions");

        whole.ShouldBe("""
            {"created":0,"object":"text_completion","id":"ID","model":"m","choices":[{"index":0,"finish_reason":"stop","text":"aa!"},{"index":1,"finish_reason":"stop","text":"bb!"}],"usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8}}
            """.Trim());
        stream.ShouldBe("""
            data: {"created":0,"object":"text_completion","id":"ID","model":"m","choices":[{"index":0,"finish_reason":null,"text":"a!"}]}

            data: {"created":0,"object":"text_completion","id":"ID","model":"m","choices":[{"index":0,"finish_reason":"length","text":""}]}

            data: {"created":0,"object":"text_completion","id":"ID","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}

            data: [DONE]


            """);
    }

    [Theory]
    [InlineData("""{"model":"m"}""", "messages")]
    [InlineData("""{"model":"m","messages":[]}""", "messages")]
    [InlineData("""{"model":"m","messages":["x"]}""", "messages[0]")]
    [InlineData("""{"model":"m","messages":[{"content":"x"}]}""", "messages[0].role")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":5}]}""", "messages[0].content")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":[{"type":"smell"}]}]}""", "messages[0].content[0].type")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/x"}}]}]}""", "messages[0].content[0].image_url.url")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":"file:///etc/passwd"}]}]}""", "messages[0].content[0].image_url")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":"data:image/png;base64,???"}]}]}""", "messages[0].content[0].image_url")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":"hot"}""", "temperature")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":-1}""", "max_tokens")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":99999999999}""", "max_tokens")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"n":2,"stream":true}""", "n")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"stop":[1]}""", "stop[0]")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]}""", "tools[0].function")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"x"}""", "tool_choice")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"g"}}}""", "tool_choice.function.name")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"schema":{"$ref":"http://x/y"}}}}""", "response_format.json_schema.schema")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"metadata":{"a":1}}""", "metadata.a")]
    [InlineData("""{"model":"m","messages":[{"role":"user","content":"x"}],"seed":1.5}""", "seed")]
    public async Task A_field_that_cannot_be_taken_is_named_and_the_backend_not_asked(string body, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);

        var (status, answer) = await PostAsync(host, body);

        status.ShouldBe(HttpStatusCode.BadRequest, answer);
        var error = JsonDocument.Parse(answer).RootElement.GetProperty("error");
        (error.GetProperty("code").GetString(), error.GetProperty("param").GetString()).ShouldBe(("invalid_value", field));
        backend.Asked.ShouldBeEmpty();
    }

    [Fact]
    public async Task Half_of_a_character_is_no_text()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);

        var (status, answer) = await PostAsync(host, """{"model":"m","messages":[{"role":"user","content":"\ud800"}]}""");

        status.ShouldBe(HttpStatusCode.BadRequest);
        answer.ShouldContain("\"code\":\"invalid_json\"");
        backend.Asked.ShouldBeEmpty();
    }

    /// <summary>The deltas of a stream, each with its reason if it has one; of the last chunk its empty choices and the count.</summary>
    private static IEnumerable<string> Deltas(string stream)
    {
        foreach (var line in stream.Split('\n').Where(line => line.StartsWith("data: {", StringComparison.Ordinal)))
        {
            var chunk = JsonDocument.Parse(line["data: ".Length..]).RootElement;
            chunk.GetProperty("object").GetString().ShouldBe("chat.completion.chunk");
            if (chunk.GetProperty("choices").GetArrayLength() == 0)
            {
                yield return $"[] {chunk.GetProperty("usage").GetRawText()}";
                continue;
            }
            var choice = chunk.GetProperty("choices")[0];
            yield return choice.GetProperty("delta").GetRawText() + (choice.GetProperty("finish_reason").GetString() is { } reason ? " " + reason : "");
        }
    }

    internal static async Task<(HttpStatusCode Status, string Body)> PostAsync(ControlPlane host, string body, string path = "/v1/chat/completions")
    {
        using var content = new StringContent(body, Encoding.UTF8, "application/json");
        using var answer = await host.Client.PostAsync(new Uri(path, UriKind.Relative), content, Ct);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        return (answer.StatusCode, Varying().Replace(text, match => match.Value.StartsWith("\"created", StringComparison.Ordinal) ? "\"created\":0" : "\"id\":\"ID\""));
    }

    [GeneratedRegex("\"created\":[0-9]+|\"id\":\"[0-9a-f]{8}-[0-9a-f-]{27}\"")]
    private static partial Regex Varying();
}
