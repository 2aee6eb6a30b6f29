using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Monitor;

/// <summary>LocalAI's monitor, shutdown, token metrics and system, on simulated engines.</summary>
public sealed class MonitorTests
{
    private const string Model = "demo/tiny-chat";
    private const string Question = """{"model": "demo/tiny-chat"}""";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_model_is_asked_for_by_query_by_a_body_of_get_and_by_post()
    {
        using var node = new TestNode(gpus: 1);
        await using var host = await ControlPlane.StartAsync(node);
        var id = await StartAsync(host, node);
        await Deadline.UntilAsync(async () => (await AskAsync(host, HttpMethod.Post, "/backend/monitor", Question)).Body, text => Has(text, "weights", "kv_cache", "gpu", "rss"));
        var answers = new List<(int Status, string Body)>();

        foreach (var path in (string[])["/backend/monitor", "/v1/backend/monitor"])
        {
            answers.Add(await AskAsync(host, HttpMethod.Get, path, Question));
            answers.Add(await AskAsync(host, HttpMethod.Post, path, Question));
            answers.Add(await AskAsync(host, HttpMethod.Get, path + "?model=demo%2Ftiny-chat", null));
        }
        await host.Client.StopModelAsync(id);

        answers.Select(answer => answer.Status).ShouldAllBe(status => status == 200);
        foreach (var (_, body) in answers)
        {
            Shape(body).ShouldBe("""{"state":2,"memory":{"total":0,"breakdown":{"weights":0,"kv_cache":0,"gpu":0,"rss":0}},"memory_info":{"rss":0,"vms":0},"memory_percent":0,"cpu_percent":0}""");
            var answer = JsonNode.Parse(body)!;
            var parts = answer["memory"]!["breakdown"]!.AsObject().ToDictionary(part => part.Key, part => (long)part.Value!);
            ((long)answer["memory"]!["total"]!).ShouldBe(parts["gpu"] + parts["rss"]);
            parts["weights"].ShouldBeGreaterThan(1_000_000);
            parts["gpu"].ShouldBeGreaterThan(parts["weights"]);
            parts["rss"].ShouldBe((long)answer["memory_info"]!["rss"]!);
            ((long)answer["memory_info"]!["vms"]!).ShouldBeGreaterThan(parts["rss"]);
            ((double)answer["memory_percent"]!).ShouldBeInRange(0.001, 100);
        }
    }

    [Theory]
    [InlineData("GET", "/backend/monitor", null, 400, "model query parameter is required")]
    [InlineData("GET", "/v1/backend/monitor?model=%20", null, 400, "model query parameter is required")]
    [InlineData("POST", "/backend/monitor", "{}", 400, "model query parameter is required")]
    [InlineData("POST", "/backend/monitor", "null", 400, "model query parameter is required")]
    [InlineData("POST", "/v1/backend/monitor", """{"model": ""}""", 400, "model query parameter is required")]
    [InlineData("POST", "/backend/monitor", """{"model": 7}""", 400, "model: has the wrong type")]
    [InlineData("GET", "/backend/monitor", "model", 400, "the body is not a JSON object")]
    [InlineData("POST", "/backend/shutdown", """["m"]""", 400, "the body is not a JSON object")]
    [InlineData("POST", "/backend/shutdown", "{}", 400, "model is required")]
    [InlineData("POST", "/v1/backend/shutdown", null, 400, "model is required")]
    [InlineData("POST", "/backend/shutdown", """{"model": "m", "force": "yes"}""", 400, "force: has the wrong type")]
    [InlineData("GET", "/backend/monitor?model=nobody", null, 500, "backend nobody is not currently loaded")]
    [InlineData("POST", "/backend/shutdown", """{"model": "nobody"}""", 500, "model nobody not found")]
    [InlineData("GET", "/tokenMetrics", null, 400, "model is required")]
    [InlineData("POST", "/v1/tokenMetrics", """{"model": "nobody"}""", 500, "backend nobody is not currently loaded")]
    [InlineData("GET", "/backend/shutdown", null, 405, "Method Not Allowed")]
    [InlineData("DELETE", "/v1/backend/monitor", null, 405, "Method Not Allowed")]
    [InlineData("GET", "/v1/backend/other", null, 404, "Resource not found")]
    public async Task What_is_wrong_is_refused_in_LocalAI_s_envelope(string method, string path, string? body, int status, string message)
    {
        await using var host = await ControlPlane.StartAsync();

        var answer = await AskAsync(host, new HttpMethod(method), path, body);

        answer.ShouldBe((status, Error(status, message)));
    }

    [Fact]
    public async Task A_body_of_another_type_or_a_large_one_is_refused()
    {
        await using var host = await ControlPlane.StartAsync();

        (await AskAsync(host, HttpMethod.Post, "/v1/backend/monitor", "model=m", "application/x-www-form-urlencoded")).ShouldBe(
            (415, Error(415, "The body must be JSON, with Content-Type: application/json.")));
        (await AskAsync(host, HttpMethod.Post, "/v1/backend/monitor", $$"""{"model": "{{new string('x', 2_000_000)}}"}""", mayWait: true)).ShouldBe((413, Error(413, "The body is too large.")));
    }

    [Theory]
    [InlineData("/backend/monitor")]
    [InlineData("/v1/backend/monitor")]
    [InlineData("/v1/backend/shutdown")]
    [InlineData("/tokenMetrics")]
    [InlineData("/v1/tokenMetrics")]
    [InlineData("/system")]
    public async Task They_are_the_administrator_s(string path)
    {
        await using var host = await ControlPlane.StartAsync();
        using var made = await host.Client.PostAsJsonAsync("/api/api-keys", new { label = "k" }, Ct);
        host.Client.DefaultRequestHeaders.Authorization = new("Bearer", (await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("key").GetString());

        var answer = await AskAsync(host, path == "/system" ? HttpMethod.Get : HttpMethod.Post, path, path == "/system" ? null : Question);

        answer.ShouldBe((401, """{"error":{"code":401,"message":"An authentication key is required","type":"invalid_request_error"}}"""));
    }

    [Fact]
    public async Task A_loading_model_is_0_a_failed_one_minus_1_and_a_stopped_one_not_loaded()
    {
        using var node = new TestNode();
        await using var host = await ControlPlane.StartAsync(node);
        var loading = await StartAsync(host, node, "loading", ("VLLM_SIM_HANG", "load"));
        var failing = await StartAsync(host, node, "failing", ("VLLM_SIM_FAIL", "oom"));

        var first = await AskAsync(host, HttpMethod.Get, "/backend/monitor?model=loading", null);
        await host.Client.StatusAsync(failing, "error");
        var second = await AskAsync(host, HttpMethod.Get, "/backend/monitor?model=failing", null);
        var kept = await AskAsync(host, HttpMethod.Post, "/backend/shutdown", """{"model": "failing"}""");
        var gone = await AskAsync(host, HttpMethod.Post, "/backend/shutdown", """{"model": "loading"}""");
        var third = await AskAsync(host, HttpMethod.Get, "/backend/monitor?model=loading", null);

        JsonNode.Parse(first.Body)!["state"]!.GetValue<int>().ShouldBe(0);
        JsonNode.Parse(second.Body)!["state"]!.GetValue<int>().ShouldBe(-1);
        kept.ShouldBe((500, Error(500, "model failing not found")));
        gone.ShouldBe((200, """{"message":"model stopped"}"""));
        third.ShouldBe((500, Error(500, "backend loading is not currently loaded")));
        (await host.Client.StatusAsync(loading, "stopped")).GetProperty("id").GetInt32().ShouldBe(loading);
    }

    [Fact]
    public async Task Several_deployments_of_a_model_are_summed_and_shut_down_together()
    {
        using var node = new TestNode();
        await using var host = await ControlPlane.StartAsync(node);
        await StartAsync(host, node, "one");
        await StartAsync(host, node, "two");

        var both = JsonNode.Parse(await Deadline.UntilAsync(async () => (await AskAsync(host, HttpMethod.Post, "/backend/monitor", Question)).Body,
            text => text.Split("\"rss\"").Length == 5))!;
        var one = await AskAsync(host, HttpMethod.Get, "/backend/monitor?model=one", null);
        var system = await AskAsync(host, HttpMethod.Get, "/system", null);
        var gone = await AskAsync(host, HttpMethod.Post, "/v1/backend/shutdown", Question);
        var left = await AskAsync(host, HttpMethod.Get, "/system", null);

        both["instances"]!.AsArray().Select(instance => (int)instance!["state"]!).ShouldBe([2, 2]);
        both["instances"]!.AsArray().Sum(instance => (long)instance!["memory"]!["total"]!).ShouldBe((long)both["memory"]!["total"]!);
        both["instances"]![0]!["status"]!.GetValue<string>().ShouldBe("running");
        JsonNode.Parse(one.Body)!["instances"].ShouldBeNull();
        system.ShouldBe((200, """{"backends":["simulator"],"loaded_models":[{"id":"one","backend":"simulator"},{"id":"two","backend":"simulator"}]}"""));
        gone.ShouldBe((200, """{"message":"model stopped"}"""));
        left.ShouldBe((200, """{"backends":["simulator"],"loaded_models":[]}"""));
    }

    [Fact]
    public async Task A_shutdown_lets_calls_end_says_that_the_model_is_busy_and_cuts_them_off_when_told_to()
    {
        using var node = new TestNode();
        await using var host = await ControlPlane.StartAsync(node, configuration: "Monitor:ShutdownGrace=00:00:00.5");
        var id = await StartAsync(host, node, "slow", ("VLLM_SIM_ITL_MS", "50"), ("VLLM_SIM_OUTPUT_TOKENS", "100000"));
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat("slow", stream: true, maxTokens: 2000)) };
        using var stream = await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);

        var monitored = await AskAsync(host, HttpMethod.Get, "/backend/monitor?model=slow", null);
        var busy = await AskAsync(host, HttpMethod.Post, "/backend/shutdown", """{"model": "slow"}""");
        var still = await host.Client.StatusAsync(id, "running");
        var forced = await AskAsync(host, HttpMethod.Post, "/backend/shutdown", """{"model": "slow", "force": true}""");

        JsonNode.Parse(monitored.Body)!["state"]!.GetValue<int>().ShouldBe(1);
        busy.ShouldBe((500, Error(500, "model is still busy: slow")));
        still.GetProperty("id").GetInt32().ShouldBe(id);
        forced.ShouldBe((200, """{"message":"model stopped"}"""));
    }

    [Fact]
    public async Task What_the_engine_told_while_it_loaded_outlives_a_restart_and_is_a_metric()
    {
        using var node = new TestNode();
        var parts = new List<string>();
        for (var start = 0; start < 2; start++)
        {
            await using var host = await ControlPlane.StartAsync(node);
            if (start == 0)
                await StartAsync(host, node);
            parts.Add(await Deadline.UntilAsync(async () => (await AskAsync(host, HttpMethod.Post, "/backend/monitor", Question)).Body, text => Has(text, "weights", "kv_cache", "rss")));
            if (start == 0)
                continue;
            var page = await host.Client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct);
            page = string.Join('\n', page.Split('\n').Where(line => line.StartsWith("modelhost_engine", StringComparison.Ordinal)));
            foreach (var part in (string[])["weights", "kv_cache", "rss"])
                page.ShouldMatch($$"""modelhost_engine_memory_bytes\{deployment="\d+",model="demo/tiny-chat",part="{{part}}"\} [1-9]""");
            await host.Client.StopModelAsync(JsonNode.Parse(await host.Client.GetStringAsync(new Uri("/api/deployments", UriKind.Relative), Ct))![0]!["id"]!.GetValue<int>());
        }

        parts.Select(body => JsonNode.Parse(body)!["memory"]!["breakdown"]!["weights"]!.GetValue<long>()).Distinct().ShouldHaveSingleItem();
    }

    [Fact]
    public async Task Tokens_are_those_that_the_engine_counted()
    {
        using var node = new TestNode();
        await using var host = await ControlPlane.StartAsync(node);
        var id = await StartAsync(host, node);
        using (var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(Model, maxTokens: 7), Ct))
            answer.EnsureSuccessStatusCode();

        var metrics = await Deadline.UntilAsync(async () => JsonNode.Parse((await AskAsync(host, HttpMethod.Get, "/v1/tokenMetrics", Question)).Body)!,
            found => found["tokens_generated"] is not null);
        var posted = await AskAsync(host, HttpMethod.Post, "/tokenMetrics", Question);
        await host.Client.StopModelAsync(id);

        ((long)metrics["tokens_generated"]!).ShouldBe(7);
        ((long)metrics["prompt_tokens_processed"]!).ShouldBeGreaterThan(0);
        posted.Status.ShouldBe(200);
        JsonNode.Parse(posted.Body)!.AsObject().Select(field => field.Key).ShouldBeSubsetOf(["tokens_per_second", "tokens_generated", "prompt_tokens_processed"]);
    }

    private static async Task<int> StartAsync(ControlPlane host, TestNode node, string? servedName = null, params (string Key, string Value)[] variables)
    {
        var id = await host.Client.NodeAsync("process");
        var isFirst = servedName is null or "one" or "loading" or "slow";
        var deployment = await host.Client.StartModelAsync(Api.StartRequest(id, port: isFirst ? 8101 : 8102, change: request =>
        {
            request["max_failed_restarts"] = 1;
            if (servedName is not null)
                request["engine_args"] = new JsonObject { ["served_model_name"] = servedName };
            if (node.GpuFolder.Length > 0)
                variables = [.. variables, ("VLLM_SIM_GPU_DIR", node.GpuFolder)];
            request["env_vars"] = new JsonArray([.. variables.Select(variable => new JsonObject { ["key"] = variable.Key, ["value"] = variable.Value })]);
        }));
        if (!variables.Any(variable => variable.Key is "VLLM_SIM_HANG" or "VLLM_SIM_FAIL"))
            await host.Client.StatusAsync(deployment, "running");
        return deployment;
    }

    private static async Task<(int Status, string Body)> AskAsync(ControlPlane host, HttpMethod method, string path, string? body, string type = "application/json", bool mayWait = false)
    {
        using var request = new HttpRequestMessage(method, path) { Content = body is null ? null : new StringContent(body, Encoding.UTF8, type) };
        // a server that refuses a body while it is being sent breaks the pipe, at times before its answer is read
        request.Headers.ExpectContinue = mayWait;
        using var answer = await host.Client.SendAsync(request, Ct);
        return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct));
    }

    private static bool Has(string text, params string[] words) => words.All(word => text.Contains($"\"{word}\"", StringComparison.Ordinal)) && text.StartsWith("{\"state\":2", StringComparison.Ordinal);

    /// <summary>The answer with every figure but the state 0, since they are of a real process.</summary>
    private static string Shape(string body) => System.Text.RegularExpressions.Regex.Replace(body, """(?<!"state"):[0-9.]+(E-[0-9]+)?""", ":0");

    private static string Error(int status, string message) => $$$"""{"error":{"code":{{{status}}},"message":{{{JsonSerializer.Serialize(message)}}},"type":""}}""";
}
