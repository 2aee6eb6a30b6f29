using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Usage;

/// <summary>What becomes of requests and of what they used when the control plane ends.</summary>
public sealed class EndTests : IDisposable
{
    private const string Model = "demo/tiny-chat";
    private readonly TestNode _node = new();
    private readonly int _port = TestPorts.Free();

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public void Dispose() => _node.Dispose();

    [Fact]
    public async Task A_stop_waits_for_what_is_under_way_takes_nothing_new_and_loses_no_count()
    {
        // long enough that they are still under way when the end has been seen
        const int Tokens = 400;
        await using var first = await ModelHostProcess.ServeAsync(_node, _port, "Gateway:DrainTimeout=00:02:00");
        using var client = Client();
        var id = await StartAsync(client, ("VLLM_SIM_ITL_MS", "50"), ("VLLM_SIM_OUTPUT_TOKENS", "1000"));
        using var reader = await BeginStreamAsync(client, Tokens);
        var whole = client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(Model, maxTokens: Tokens), Ct);
        using var idle = Client();
        using var second = Client();
        (await idle.GetAsync(new Uri("/v1/models", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        (await second.GetAsync(new Uri("/readyz", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        // a new connection may be slower than those that there are
        await Deadline.UntilAsync(() => idle.JsonAsync($"/api/deployments/{id}"), d => d.TryGetProperty("requests_running", out var running) && running.ValueKind == JsonValueKind.Number && running.GetInt32() == 2);

        var stopped = first.StopAsync();
        // both connections were there before; which of them hears of the end first does not matter
        (await Deadline.UntilAsync(() => second.GetAsync(new Uri("/readyz", UriKind.Relative), Ct), answer => answer.StatusCode != HttpStatusCode.OK))
            .StatusCode.ShouldBe(HttpStatusCode.ServiceUnavailable);
        using var refused = await idle.PostAsJsonAsync("/v1/chat/completions", Api.Chat(Model), Ct);
        var error = (await refused.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("error");
        var rest = await reader.ReadToEndAsync(Ct);
        using var answered = await whole;

        (refused.StatusCode, error.GetProperty("code").GetString(), refused.Headers.ConnectionClose).ShouldBe((HttpStatusCode.ServiceUnavailable, "shutting_down", true));
        rest.TrimEnd().ShouldEndWith("data: [DONE]");
        answered.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await stopped).ShouldBe(0);
        await using var again = await ModelHostProcess.ServeAsync(_node, _port);
        using var after = Client();
        var total = await TotalAsync(after);
        await after.StopModelAsync(id);
        (total.Requests, total.Aborted, total.Completion).ShouldBe((2, 0, 2 * Tokens));
    }

    [Fact]
    public async Task A_stop_that_has_waited_long_enough_cuts_streams_off_and_counts_what_was_passed_on()
    {
        await using var first = await ModelHostProcess.ServeAsync(_node, _port, "Gateway:DrainTimeout=00:00:01");
        using var client = Client();
        var id = await StartAsync(client, ("VLLM_SIM_ITL_MS", "50"), ("VLLM_SIM_OUTPUT_TOKENS", "100000"));
        using var reader = await BeginStreamAsync(client, tokens: 2000);
        var read = 0;
        var reading = Task.Run(async () =>
        {
            while (await reader.ReadLineAsync(Ct) is { } line)
                read += line.Contains("\"content\":", StringComparison.Ordinal) ? 1 : 0;
        }, Ct);
        var began = TimeProvider.System.GetTimestamp();

        (await first.StopAsync()).ShouldBe(0);

        // the stream goes on for 100 s, and the listener would wait for it for 30
        TimeProvider.System.GetElapsedTime(began).ShouldBeLessThan(Deadline.Allowed(15));
        await Should.ThrowAsync<IOException>(() => reading);
        await using var again = await ModelHostProcess.ServeAsync(_node, _port);
        using var after = Client();
        var total = await TotalAsync(after);
        await after.StopModelAsync(id);
        (total.Requests, total.Aborted).ShouldBe((1, 1));
        total.Completion.ShouldBeGreaterThanOrEqualTo(read);
    }

    [Fact]
    public async Task A_crash_loses_what_was_used_in_the_last_two_seconds_at_most()
    {
        var first = await ModelHostProcess.ServeAsync(_node, _port);
        using var client = Client();
        var id = await StartAsync(client);
        var answered = new ConcurrentQueue<(long At, int Tokens)>();
        var crashed = false;
        var traffic = Enumerable.Range(0, 4).Select(async n =>
        {
            for (var i = n; !Volatile.Read(ref crashed); i++)
            {
                try
                {
                    using var answer = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(Model, maxTokens: 1 + (i % 9)), Ct);
                    answer.EnsureSuccessStatusCode();
                    answered.Enqueue((TimeProvider.System.GetTimestamp(), 1 + (i % 9)));
                    await Task.Delay(5, Ct);
                }
                catch (HttpRequestException) when (Volatile.Read(ref crashed))
                {
                    return;
                }
            }
        }).ToArray();
        var lost = Deadline.Allowed(2);
        var began = TimeProvider.System.GetTimestamp();
        await Deadline.UntilAsync(() => TimeProvider.System.GetElapsedTime(began) > lost + TimeSpan.FromSeconds(3), 60 + lost.TotalSeconds, "some seconds of traffic");

        Volatile.Write(ref crashed, true);
        var at = TimeProvider.System.GetTimestamp();
        await first.DisposeAsync(); // SIGKILL
        await Task.WhenAll(traffic);

        await using var again = await ModelHostProcess.ServeAsync(_node, _port);
        using var after = Client();
        var total = await TotalAsync(after);
        await after.StopModelAsync(id);
        var certain = answered.Where(answer => TimeProvider.System.GetElapsedTime(answer.At, at) > lost).Sum(answer => answer.Tokens);
        certain.ShouldBeGreaterThan(0);
        total.Completion.ShouldBeInRange(certain, answered.Sum(answer => answer.Tokens) + (traffic.Length * 9), "requests under way at the crash have no answer, and may be counted");
    }

    private HttpClient Client() => new() { BaseAddress = new Uri($"http://127.0.0.1:{_port}") };

    private static async Task<int> StartAsync(HttpClient client, params (string Key, string Value)[] variables)
    {
        var id = await client.StartModelAsync(Api.StartRequest(await client.NodeAsync("process"), change: request =>
        {
            request["skip_resource_check"] = true;
            request["env_vars"] = new JsonArray([.. variables.Select(variable => new JsonObject { ["key"] = variable.Key, ["value"] = variable.Value })]);
        }));
        await client.StatusAsync(id, "running");
        return id;
    }

    private static async Task<StreamReader> BeginStreamAsync(HttpClient client, int tokens)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat(Model, stream: true, maxTokens: tokens)) };
        var answer = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
        var reader = new StreamReader(await answer.EnsureSuccessStatusCode().Content.ReadAsStreamAsync(Ct));
        (await reader.ReadLineAsync(Ct))!.ShouldStartWith("data: ");
        return reader;
    }

    private static async Task<Totals> TotalAsync(HttpClient client)
    {
        var total = (await client.JsonAsync("/api/usage")).GetProperty("total");
        long Read(string name) => total.GetProperty(name).GetInt64();
        return new Totals(Read("requests"), Read("aborted_requests"), Read("completion_tokens"));
    }

    private sealed record Totals(long Requests, long Aborted, long Completion);
}
