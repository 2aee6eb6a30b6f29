using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Simulator;

/// <summary>The batch, its queue and the KV cache.</summary>
public sealed class SchedulingTests
{
    private const string Completions = "/v1/completions";

    private const string Labels = "{engine=\"0\",model_name=\"m\"}";

    private static readonly Dictionary<string, string> Slow = new() { ["VLLM_SIM_ITL_MS"] = "20" };

    [Fact]
    public async Task Every_answer_takes_a_place_and_the_queue_keeps_its_order()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Slow, "m", "--max-num-seqs", "4");

        var first = simulator.SendAsync(Completions, Endless("a", n: 3));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running" + Labels), running => running == 3);
        var second = simulator.SendAsync(Completions, Endless("b", n: 2));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_waiting" + Labels), waiting => waiting == 2);
        // there would be a place for this one, but others were there before
        var third = simulator.SendAsync(Completions, Endless("c", n: 1));

        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_waiting" + Labels), waiting => waiting == 3);
        (await simulator.MetricAsync("vllm:num_requests_running" + Labels)).ShouldBe(3);
        (await simulator.MetricAsync("vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"m\",reason=\"capacity\"}")).ShouldBe(3);
        await simulator.StopAsync();
        await Task.WhenAll(first, second, third);
    }

    [Fact]
    public async Task More_answers_than_places_run_alone()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--max-num-seqs", "2");

        (await simulator.SendAsync(Completions, """{"prompt":"a","n":5,"max_tokens":2}""")).Body["choices"]!.AsArray().Count.ShouldBe(5);
    }

    [Theory]
    [InlineData("--max-num-queued-reqs", "1")]
    [InlineData("--max-num-queued-tokens", "3")]
    public async Task A_queue_with_a_limit_refuses_what_is_too_much(string flag, string limit)
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new(Slow) { ["VLLM_SIM_VERSION"] = "0.29.0" }, "m", "--max-num-seqs", "1", flag, limit);
        var first = simulator.SendAsync(Completions, Endless("one two"));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running" + Labels), running => running == 1);
        var second = simulator.SendAsync(Completions, Endless("one two"));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_waiting" + Labels), waiting => waiting == 1);

        var (status, body) = await simulator.SendAsync(Completions, Endless("one two"));

        (status, (int)body["error"]!["code"]!).ShouldBe((503, 503));
        await simulator.StopAsync();
        await Task.WhenAll(first, second);
    }

    [Theory]
    [InlineData("\"n\":16384,\"max_tokens\":40000,\"ignore_eos\":true", 400)]
    [InlineData("\"n\":16384,\"max_tokens\":40000,\"min_tokens\":40000", 400)]
    [InlineData("\"n\":16384", 200)]
    public async Task Answers_that_would_take_all_memory_are_refused(string members, int status)
    {
        await using var simulator = await RunningSimulator.StartAsync("Qwen/Qwen3-0.6B");

        (await simulator.SendAsync(Completions, $"{{\"prompt\":\"a\",{members}}}")).Status.ShouldBe(status);
    }

    [Fact]
    public async Task The_cache_is_counted_in_blocks()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new(Slow) { ["VLLM_SIM_TTFT_MS"] = "60000" }, "m", "--num-gpu-blocks-override", "100", "--block-size", "8");

        var request = simulator.SendAsync(Completions, $$"""{"prompt":"{{Words("the", 20)}}","n":2,"max_tokens":5}""");

        // 20 tokens: two full blocks that both answers share, and an unfinished one for each
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:kv_cache_usage_perc" + Labels), usage => usage > 0);
        (await simulator.MetricAsync("vllm:kv_cache_usage_perc" + Labels)).ShouldBe(0.04);
        await simulator.StopAsync();
        await request;
    }

    [Fact]
    public async Task A_full_cache_sends_the_last_one_back_and_loses_no_token()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_SIM_ITL_MS"] = "10", ["VLLM_SERVER_DEV_MODE"] = "1" }, "m",
            "--num-gpu-blocks-override", "10", "--no-enable-prefix-caching", "--enable-server-load-tracking");
        var alone = Text(await simulator.SendAsync(Completions, Tokens("second", 120)));

        // both have come before either runs: neither is at its end when the other begins
        using var pause = await simulator.PostAsync("/pause", "");
        var first = simulator.SendAsync(Completions, Tokens("first", 120));
        var second = simulator.SendAsync(Completions, Tokens("second", 120));
        await LoadAsync(simulator, 2);
        using var resume = await simulator.PostAsync("/resume", "");

        ((int)(await first).Body["usage"]!["completion_tokens"]!).ShouldBe(120);
        Text(await second).ShouldBe(alone);
        (await simulator.MetricAsync("vllm:num_preemptions_total" + Labels)).ShouldBeGreaterThan(0);
        (await simulator.MetricAsync("vllm:kv_cache_usage_perc" + Labels)).ShouldBe(0);
        (await simulator.MetricAsync("vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"m\"}")).ShouldBe(3);
    }

    [Fact]
    public async Task Who_does_not_fit_into_the_cache_waits()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Slow, "m", "--num-gpu-blocks-override", "10");
        var first = simulator.SendAsync(Completions, Endless(Words("the", 100)));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running" + Labels), running => running == 1);

        var second = simulator.SendAsync(Completions, Endless(Words("a", 100)));

        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_waiting" + Labels), waiting => waiting == 1);
        (await simulator.MetricAsync("vllm:num_requests_running" + Labels)).ShouldBe(1);
        await simulator.StopAsync();
        await Task.WhenAll(first, second);
    }

    [Fact]
    public async Task Prompts_that_begin_alike_share_whole_blocks()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--enable-prompt-tokens-details");
        await simulator.SendAsync(Completions, Prompt(Words("the", 40) + Words(" a", 40)));

        // 40 tokens are alike: two blocks of 16, and 8 of the third one
        (await CachedAsync(Words("the", 40) + Words(" in", 40))).ShouldBe(32);
        // all of it is there, but the last token is always computed
        (await CachedAsync(Words("the", 32))).ShouldBe(16);
        (await CachedAsync(Words("in", 40))).ShouldBe(0);
        (await simulator.MetricAsync("vllm:prefix_cache_queries_total" + Labels)).ShouldBe(80 + 80 + 32 + 40);
        (await simulator.MetricAsync("vllm:prefix_cache_hits_total" + Labels)).ShouldBe(48);
        (await simulator.MetricAsync("vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"m\",source=\"local_cache_hit\"}")).ShouldBe(48);

        async Task<int> CachedAsync(string prompt) => Cached(await simulator.SendAsync(Completions, Prompt(prompt)));
    }

    [Theory]
    [InlineData("salt", "salt", 32)]
    [InlineData("salt", "pepper", 0)]
    [InlineData("salt", null, 0)]
    public async Task A_salt_keeps_prompts_apart(string first, string? second, int cached)
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--enable-prompt-tokens-details");
        var prompt = Prompt(Words("the", 40));

        await simulator.SendAsync(Completions, prompt.Replace("{", $"{{\"cache_salt\":\"{first}\",", StringComparison.Ordinal));
        var answer = await simulator.SendAsync(Completions, second is null ? prompt : prompt.Replace("{", $"{{\"cache_salt\":\"{second}\",", StringComparison.Ordinal));

        Cached(answer).ShouldBe(cached);
    }

    [Theory]
    [InlineData("/v1/responses", "\"max_output_tokens\":1,\"input\":\"{0}\"")]
    [InlineData("/inference/v1/generate", "\"sampling_params\":{\"max_tokens\":1},\"token_ids\":[7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7]")]
    public async Task A_salt_keeps_prompts_apart_on_other_routes(string path, string members)
    {
        await using var simulator = await RunningSimulator.StartAsync("m");
        foreach (var (salt, hits) in new[] { ("salt", 0), ("pepper", 0), ("salt", 16) })
        {
            var body = $"{{\"cache_salt\":\"{salt}\",{members.Replace("{0}", Words("the", 20), StringComparison.Ordinal)}}}";

            (await simulator.SendAsync(path, body)).Status.ShouldBe(200);

            (await simulator.MetricAsync("vllm:prefix_cache_hits_total" + Labels)).ShouldBe(hits);
        }
    }

    [Fact]
    public async Task The_longest_unused_blocks_make_room()
    {
        await using var simulator = await RunningSimulator.StartAsync(
            "m", "--enable-prompt-tokens-details", "--num-gpu-blocks-override", "6", "--kv-cache-metrics", "--kv-cache-metrics-sample", "1");
        foreach (var word in new[] { "the", "a", "in" })
            await simulator.SendAsync(Completions, Prompt(Words(word, 33)));

        // each has two full blocks; the last request needed a third one of its own, which the end of the oldest prompt gave
        Cached(await simulator.SendAsync(Completions, Prompt(Words("in", 33)))).ShouldBe(32);
        Cached(await simulator.SendAsync(Completions, Prompt(Words("the", 33)))).ShouldBe(16);
        (await simulator.MetricAsync("vllm:kv_block_lifetime_seconds_count" + Labels)).ShouldBeGreaterThan(0);
        (await simulator.MetricAsync("vllm:kv_block_idle_before_evict_seconds_count" + Labels)).ShouldBeGreaterThan(0);
        (await simulator.MetricAsync("vllm:kv_block_reuse_gap_seconds_count" + Labels)).ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task A_reset_forgets_prompts_unless_requests_run_that_it_is_not_to_disturb()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new(Slow) { ["VLLM_SERVER_DEV_MODE"] = "1" }, "m", "--enable-prompt-tokens-details");
        await simulator.SendAsync(Completions, Prompt(Words("the", 40)));
        using var leave = new CancellationTokenSource();
        var running = simulator.PostAsync(Completions, Endless("a"), HttpCompletionOption.ResponseContentRead, leave.Token);
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running" + Labels), count => count == 1);

        using var refused = await simulator.PostAsync("/reset_prefix_cache", "");
        Cached(await simulator.SendAsync(Completions, Prompt(Words("the", 40)))).ShouldBe(32);
        using var forced = await simulator.PostAsync("/reset_prefix_cache?reset_running_requests=true", "");
        Cached(await simulator.SendAsync(Completions, Prompt(Words("the", 40)))).ShouldBe(0);
        await leave.CancelAsync();
        await Should.ThrowAsync<OperationCanceledException>(running);
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running" + Labels), count => count == 0);
        using var done = await simulator.PostAsync("/reset_prefix_cache", "");

        ((int)refused.StatusCode, (int)forced.StatusCode, (int)done.StatusCode).ShouldBe((200, 200, 200));
        Cached(await simulator.SendAsync(Completions, Prompt(Words("the", 40)))).ShouldBe(0);
    }

    [Fact]
    public async Task An_adapter_too_many_is_deferred_and_lets_others_pass()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(Slow, "m", "--enable-lora", "--lora-modules", "one=org/one", "two=org/two");
        var first = simulator.SendAsync(Completions, Endless("a").Replace("{", "{\"model\":\"one\",", StringComparison.Ordinal));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_running" + Labels), running => running == 1);

        var second = simulator.SendAsync(Completions, Endless("a").Replace("{", "{\"model\":\"two\",", StringComparison.Ordinal));
        await Deadline.UntilAsync(() => simulator.MetricAsync("vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"m\",reason=\"deferred\"}"), waiting => waiting == 1);

        (await simulator.SendAsync(Completions, """{"prompt":"a","max_tokens":1}""")).Status.ShouldBe(200);
        await simulator.StopAsync();
        await Task.WhenAll(first, second);
    }

    [Fact]
    public async Task Gauges_stand_still_while_the_engine_does()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SERVER_DEV_MODE"] = "1" }, "m", "--enable-server-load-tracking");
        using var pause = await simulator.PostAsync("/pause", "");

        var request = simulator.SendAsync(Completions, """{"prompt":"a","max_tokens":1}""");
        await LoadAsync(simulator, 1);

        (await simulator.MetricAsync("vllm:num_requests_waiting" + Labels)).ShouldBe(0);
        using var resume = await simulator.PostAsync("/resume", "");
        (await request).Status.ShouldBe(200);
    }

    /// <summary>Waits until so many requests are under way. The gauges do not tell of a paused engine.</summary>
    private static Task<int> LoadAsync(RunningSimulator simulator, int requests) =>
        Deadline.UntilAsync(async () => (int)JsonNode.Parse(await simulator.Http.GetStringAsync("/load"))!["server_load"]!, load => load == requests);

    private static string Words(string word, int count) => string.Join(' ', Enumerable.Repeat(word.Trim(), count)) is var text && word[0] == ' ' ? " " + text : text;

    private static string Prompt(string text) => $$"""{"prompt":"{{text}}","max_tokens":1}""";

    private static string Tokens(string prompt, int count) => $$"""{"prompt":"{{prompt}}","max_tokens":{{count}},"ignore_eos":true}""";

    private static string Endless(string prompt, int n = 1) => $$"""{"prompt":"{{prompt}}","n":{{n}},"max_tokens":10000,"ignore_eos":true}""";

    private static string Text((int Status, JsonNode Body) answer) => (string)answer.Body["choices"]![0]!["text"]!;

    private static int Cached((int Status, JsonNode Body) answer) => (int)answer.Body["usage"]!["prompt_tokens_details"]!["cached_tokens"]!;
}
