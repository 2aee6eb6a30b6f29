using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Metering;
using ModelHost.Agent.Proxy;
using ModelHost.Features.Usage;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Proxy;

/// <summary>What is counted at the public ports of nodes.</summary>
public sealed class DirectUsageTests : IDisposable
{
    private const string Word = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", Done = "data: [DONE]\n\n";
    private const string Whole = """{"choices":[],"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}""";
    private readonly TestNode _node = new();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_stream_whose_client_did_not_ask_for_the_count_is_counted_and_does_not_show_it()
    {
        await using var proxy = new ProxyAlone(_node);
        var got = "";
        proxy.Answer = async context =>
        {
            got = await new StreamReader(context.Request.Body).ReadToEndAsync(Ct);
            context.Request.ContentLength.ShouldBe(got.Length);
            await WriteAsync(context, "text/event-stream", Word + Word + $"data: {Whole}\n\n" + Done);
        };
        await proxy.ServeAsync(DirectState.Ready);

        var plain = await PostAsync(proxy, """{"model":"m","stream":true}""");
        got.ShouldBe("""{"model":"m","stream":true,"stream_options":{"include_usage":true}}""");
        var asked = await PostAsync(proxy, """{"model":"m","stream":true,"stream_options":{"include_usage":true}}""");

        plain.ShouldBe(Word + Word + Done);
        asked.ShouldBe(Word + Word + $"data: {Whole}\n\n" + Done);
        proxy.Used().ShouldBe(new UsageCount(2, 0, 0, 14, 10));
    }

    [Fact]
    public async Task Of_a_stream_that_is_given_up_what_was_passed_on_is_counted()
    {
        await using var proxy = new ProxyAlone(_node);
        proxy.Answer = async context =>
        {
            await context.Request.Body.CopyToAsync(Stream.Null, Ct);
            context.Response.ContentType = "text/event-stream";
            await context.Response.WriteAsync("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n" + Word + Word + Word, Ct);
            await context.Response.Body.FlushAsync(Ct);
            await Task.Delay(Timeout.Infinite, context.RequestAborted);
        };
        await proxy.ServeAsync(DirectState.Ready);
        using (var answer = await DirectNode.ChatAsync(proxy.Client, stream: true))
        {
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
            for (var lines = 0; lines < 8; lines++)
                await reader.ReadLineAsync(Ct);
        }

        await Deadline.UntilAsync(() => proxy.Used().Requests == 1, 60);

        proxy.Used().ShouldBe(new UsageCount(1, 1, 0, 0, 3));
    }

    [Fact]
    public async Task A_stream_whose_engine_breaks_off_ends_with_an_error_and_is_counted()
    {
        await using var proxy = new ProxyAlone(_node);
        var heard = new TaskCompletionSource();
        proxy.Answer = async context =>
        {
            await context.Request.Body.CopyToAsync(Stream.Null, Ct);
            context.Response.ContentType = "text/event-stream";
            await context.Response.WriteAsync(Word + Word + "data: {\"cho", Ct);
            await context.Response.Body.FlushAsync(Ct);
            await heard.Task.WaitAsync(Ct);
            context.Abort();
        };
        await proxy.ServeAsync(DirectState.Ready);

        using var answer = await DirectNode.ChatAsync(proxy.Client, stream: true);
        using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
        (await reader.ReadLineAsync(Ct)).ShouldBe(Word.TrimEnd());
        heard.SetResult();
        var passed = await reader.ReadToEndAsync(Ct);

        passed.ShouldContain("deployment_unreachable");
        passed.ShouldEndWith(Done);
        passed.ShouldNotContain("cho\n");
        proxy.Used().ShouldBe(new UsageCount(1, 1, 0, 0, 2 - 1)); // the first of a chat tells the role
        proxy.Log.All.ShouldContain(line => line.Contains("broke off a stream", StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_an_engine_refuses_is_a_request_without_tokens_and_what_does_not_reach_it_is_none()
    {
        await using var proxy = new ProxyAlone(_node);
        proxy.Answer = context =>
        {
            context.Response.StatusCode = 400;
            return WriteAsync(context, "application/json", """{"error":{"message":"no"}}""");
        };
        await proxy.ServeAsync(DirectState.Ready);

        await PostAsync(proxy, """{"model":"m"}""");
        await proxy.Client.GetAsync(new Uri("/v1/models", UriKind.Relative), Ct);
        await proxy.Client.GetAsync(new Uri("/metrics", UriKind.Relative), Ct);
        await proxy.ServeAsync(DirectState.Coming);
        await PostAsync(proxy, """{"model":"m"}""");

        proxy.Used().ShouldBe(new UsageCount(1, 0, 1, 0, 0));
        proxy.Asked.ShouldBe(2);
    }

    [Theory]
    [InlineData("""{"model":"m","stream":1}""", "application/json", 400, "invalid_type")]
    [InlineData("""{"stream":true,"stream_options":{"include_usage":"no"}}""", "application/json", 400, "invalid_type")]
    [InlineData("""{"stream":true,"stream_options":{},"stream_options":null}""", "application/json", 400, "invalid_type")]
    [InlineData("""{"stream":true""", "application/json", 400, "invalid_json")]
    [InlineData("[]", "application/json", 400, "invalid_json")]
    [InlineData("", "application/json", 400, "invalid_json")]
    [InlineData("""{"stream":true}""", "text/plain", 415, "unsupported_media_type")]
    public async Task What_an_engine_may_answer_with_a_stream_that_is_not_counted_is_refused(string body, string type, int status, string code)
    {
        await using var proxy = new ProxyAlone(_node);
        await proxy.ServeAsync(DirectState.Ready);

        using var content = new StringContent(body, Encoding.UTF8, type);
        using var answer = await proxy.Client.PostAsync(new Uri("/v1/chat/completions", UriKind.Relative), content, Ct);

        ((int)answer.StatusCode).ShouldBe(status);
        (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("error").GetProperty("code").GetString().ShouldBe(code);
        (proxy.Asked, proxy.Used()).ShouldBe((0, default));
    }

    /// <summary>A port leads to one deployment: which model a body names is the engine's to judge.</summary>
    [Theory]
    [InlineData("{}")]
    [InlineData("""{"model":7,"messages":[]}""")]
    [InlineData("""{"model":"a","model":"b"}""")]
    [InlineData("""{"stream":false,"stream_options":7}""")]
    public async Task Other_bodies_pass_as_they_are(string body)
    {
        await using var proxy = new ProxyAlone(_node);
        proxy.Answer = async context => await WriteAsync(context, "application/json", await new StreamReader(context.Request.Body).ReadToEndAsync(Ct));
        await proxy.ServeAsync(DirectState.Ready);

        (await PostAsync(proxy, body)).ShouldBe(body);
        proxy.Used().Requests.ShouldBe(1);
    }

    [Theory]
    [InlineData(false, "")]
    [InlineData(true, "")]
    [InlineData(true, "\"model\":\"a\",\"model\":\"b\",")]
    public async Task A_large_body_passes_as_it_comes_and_asks_for_the_count_at_its_end(bool isChunked, string models)
    {
        await using var proxy = new ProxyAlone(_node);
        var got = "";
        proxy.Answer = async context =>
        {
            got = await new StreamReader(context.Request.Body).ReadToEndAsync(Ct);
            await WriteAsync(context, "text/event-stream", Word + $"data: {Whole}\n\n" + Done);
        };
        await proxy.ServeAsync(DirectState.Ready);
        var text = $$"""{"x":"{{new string('x', 6 * 1024 * 1024)}}",{{models}}"stream":true""";

        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = new StringContent(text + "}", Encoding.UTF8, "application/json") };
        request.Headers.TransferEncodingChunked = isChunked;
        using var answer = await proxy.Client.SendAsync(request, Ct);

        (await answer.Content.ReadAsStringAsync(Ct)).ShouldBe(Word + Done);
        (got == text + ",\"stream_options\":{\"include_usage\":true}}").ShouldBeTrue(got[^100..]);
        proxy.Used().ShouldBe(new UsageCount(1, 0, 0, 7, 5));
    }

    [Fact]
    public async Task It_is_booked_on_the_key_and_the_deployment_beside_what_the_gateway_counts()
    {
        await using var node = await DirectNode.StartAsync(configuration: ["Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1"]);
        await node.BecomesAsync(HttpStatusCode.OK); // without a key
        var (key, _, _) = await node.Host.Client.MakeKeyAsync("""{"label":"mine"}""");
        await node.BecomesAsync(HttpStatusCode.Unauthorized);

        (await node.ChatAsync(key, tokens: 3)).EnsureSuccessStatusCode();
        using (var stream = await node.ChatAsync(key, tokens: 4, stream: true))
            (await stream.Content.ReadAsStringAsync(Ct)).ShouldNotContain("\"usage\":{");
        (await node.ChatAsync("mh_sk_nobody")).StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        using (var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat("demo/tiny-chat", maxTokens: 5)) })
        {
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", key);
            (await node.Host.Client.SendAsync(request, Ct)).EnsureSuccessStatusCode();
        }

        var rows = await Deadline.UntilAsync(() => RowsAsync(node), rows => rows.GetValueOrDefault("mine").Requests >= 3 && rows.ContainsKey(""), 60, "all to be booked");
        rows["mine"].ShouldBe((3, 3 + 4 + 5));
        rows.Keys.ShouldBe(["", "mine"], ignoreOrder: true);
        await node.Host.Client.StopModelAsync(node.Id);
    }

    [Fact]
    public async Task Where_everybody_may_ask_a_key_is_counted_all_the_same()
    {
        await using var node = await DirectNode.StartAsync(configuration: ["Node:DirectAccess=open", "Settings:NodesSyncIntervalSeconds=1", "Settings:DeploymentsSyncIntervalSeconds=1"]);
        var (key, _, _) = await node.Host.Client.MakeKeyAsync("""{"label":"mine"}""");
        await node.BecomesAsync(HttpStatusCode.OK);

        // the node learns of the key a moment later
        await Deadline.UntilAsync(async () =>
        {
            (await node.ChatAsync(key)).EnsureSuccessStatusCode();
            return await RowsAsync(node);
        }, rows => rows.ContainsKey("mine") && rows.ContainsKey(""), 60, "requests with and without a key to be booked");

        await node.Host.Client.StopModelAsync(node.Id);
    }

    public void Dispose() => _node.Dispose();

    private static async Task<Dictionary<string, (long Requests, long Completion)>> RowsAsync(DirectNode node)
    {
        var handle = node.Host.Services.GetRequiredService<Features.Nodes.NodeRegistry>().All.Single();
        await node.Host.Services.GetRequiredService<NodeUsage>().CollectAsync(handle, Ct);
        return (await node.Host.Client.JsonAsync("/api/usage?group_by=key")).GetProperty("data").EnumerateArray()
            .ToDictionary(row => row.Text("key_label")!, row => (row.GetProperty("requests").GetInt64(), row.GetProperty("completion_tokens").GetInt64()));
    }

    private static async Task<string> PostAsync(ProxyAlone proxy, string body)
    {
        using var content = new StringContent(body, Encoding.UTF8, "application/json");
        using var answer = await proxy.Client.PostAsync(new Uri("/v1/chat/completions", UriKind.Relative), content, Ct);
        return await answer.Content.ReadAsStringAsync(Ct);
    }

    private static Task WriteAsync(HttpContext context, string type, string text)
    {
        context.Response.ContentType = type;
        return context.Response.WriteAsync(text, Ct);
    }
}
