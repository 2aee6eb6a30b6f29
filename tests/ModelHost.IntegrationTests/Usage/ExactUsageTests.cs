using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Agent.Runtimes;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Usage;

/// <summary>20,000 requests of all kinds through the built host: what it has counted is what the engines have, and what each key's answers said.</summary>
public sealed class ExactUsageTests
{
    private const string Exact = "usage/exact", Aborted = "usage/aborted";
    private const int Requests = 18_500, Aborts = 1_500, Clients = 24, Keys = 4, Prompts = 8;
    // answers of the simulator have 16 tokens and more: they are always cut at the limit
    private const int MostTokens = 12, AbortedTokens = 400;
    private static readonly string[] Kinds =
    [
        "chat", "chat-stream", "chat-stream-counted", "completion", "completion-stream", "completion-stream-counted", "responses", "responses-stream", "messages", "messages-stream",
        "refused", "no-json", "no-model", "no-key",
    ];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task What_is_counted_is_what_engines_and_answers_say()
    {
        using var node = new TestNode();
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        using var admin = new HttpClient { BaseAddress = host.Url, DefaultRequestHeaders = { Authorization = new("Bearer", (await File.ReadAllTextAsync(Path.Combine(node.Data, "admin-key"), Ct)).Trim()) } };
        var nodeId = await admin.NodeAsync("process");
        var exact = await StartAsync(admin, nodeId, Exact, 8101);
        var aborted = await StartAsync(admin, nodeId, Aborted, 8102, ("VLLM_SIM_ITL_MS", "20"), ("VLLM_SIM_OUTPUT_TOKENS", "1000"));
        var keys = new List<(int Id, string Key)>();
        for (var i = 0; i < Keys; i++)
        {
            using var made = await admin.PostAsJsonAsync("/api/api-keys", new { label = $"key {i}" }, Ct);
            var key = await made.EnsureSuccessStatusCode().Content.ReadFromJsonAsync<JsonElement>(Ct);
            keys.Add((key.GetProperty("id").GetInt32(), key.GetProperty("key").GetString()!));
        }

        using var traffic = new Traffic(host.Url, [.. keys.Select(key => key.Key)]);
        await Parallel.ForAsync(0, Clients, new ParallelOptions { MaxDegreeOfParallelism = Clients, CancellationToken = Ct }, async (client, _) =>
        {
            var random = new Random(20260904 + client);
            for (var i = client; i < Requests + Aborts; i += Clients)
            {
                if (i % ((Requests + Aborts) / Aborts) == 0)
                    await traffic.LeaveAsync(random);
                else
                    await traffic.SendAsync(random);
            }
        });
        // an answer is counted when all of it has gone out
        var requests = traffic.Left + Enumerable.Range(0, Keys).Sum(i => traffic.Expected(i).Requests);
        await Deadline.UntilAsync(async () => (await UsageAsync(admin, "")).Aggregate((Aborted: 0L, Requests: 0L), (sum, row) => (sum.Aborted + row.Aborted, sum.Requests + row.Requests)),
            sum => sum.Aborted == traffic.Left && sum.Requests >= requests, what: $"{requests} requests to be counted, and {traffic.Left} of them as given up");
        var (engine, left) = (await EngineAsync(node, Exact), await EngineAsync(node, Aborted));
        var byKey = await UsageAsync(admin, $"deployment_id={exact}&");
        var byDeployment = await UsageAsync(admin, $"deployment_id={aborted}&");
        await admin.StopModelAsync(exact);
        await admin.StopModelAsync(aborted);

        traffic.Unexpected.ShouldBeEmpty();
        (traffic.Sent + traffic.Left).ShouldBeGreaterThanOrEqualTo(20_000);
        (byKey.Sum(row => row.Prompt), byKey.Sum(row => row.Completion)).ShouldBe(engine);
        byKey.Sum(row => row.Aborted).ShouldBe(0);
        for (var i = 0; i < Keys; i++)
        {
            var row = byKey.Single(row => row.KeyId == keys[i].Id);
            (row.Requests, row.Failed, row.Prompt, row.Completion).ShouldBe(traffic.Expected(i), $"key {i}");
        }
        // of those that were given up: at least what their clients have read, at most what the engine wrote; the prompts are not known
        var passed = byDeployment.Sum(row => row.Completion);
        passed.ShouldBeInRange(traffic.EventsRead, left.Completion);
        left.Completion.ShouldBeLessThan((long)traffic.Left * AbortedTokens);
        byDeployment.Sum(row => row.Prompt).ShouldBe(0);
        TestContext.Current.SendDiagnosticMessage($"{traffic.Sent} whole: {engine}; {traffic.Left} given up: read {traffic.EventsRead}, counted {passed}, written {left.Completion}");
    }

    private static async Task<int> StartAsync(HttpClient admin, int node, string model, int port, params (string Key, string Value)[] variables)
    {
        var id = await admin.StartModelAsync(Api.StartRequest(node, port, model, change: request =>
        {
            request["skip_resource_check"] = true;
            request["extra_args"] = new JsonArray("--disable-uvicorn-access-log", "--max-num-seqs", "256");
            request["env_vars"] = new JsonArray([.. variables.Select(variable => new JsonObject { ["key"] = variable.Key, ["value"] = variable.Value })]);
        }));
        await admin.StatusAsync(id, "running");
        return id;
    }

    private static async Task<Row[]> UsageAsync(HttpClient admin, string filter) =>
    [
        .. (await admin.JsonAsync($"/api/usage?{filter}group_by=key,deployment")).GetProperty("data").EnumerateArray().Select(row => new Row(
            row.GetProperty("key_id").GetInt32(), row.GetProperty("requests").GetInt64(), row.GetProperty("aborted_requests").GetInt64(),
            row.GetProperty("failed_requests").GetInt64(), row.GetProperty("prompt_tokens").GetInt64(), row.GetProperty("completion_tokens").GetInt64())),
    ];

    /// <summary>What an engine says itself, once nothing runs in it any more.</summary>
    private static async Task<(long Prompt, long Completion)> EngineAsync(TestNode node, string model)
    {
        var sidecars = Directory.GetFiles(Path.Combine(node.Data, "engines"), "*.json").Select(file => JsonDocument.Parse(File.ReadAllBytes(file)).RootElement)
            .Select(sidecar => (Port: sidecar.GetProperty("engine_port").GetInt32(), Environment: Libc.Environment(sidecar.GetProperty("pid").GetInt32()))).OrderBy(engine => engine.Port).ToArray();
        using var client = new HttpClient();
        foreach (var (port, environment) in sidecars)
        {
            client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", environment["VLLM_API_KEY"]);
            Task<string> PageAsync() => client.GetStringAsync(new Uri($"http://127.0.0.1:{port}/metrics"), Ct);
            if (!(await PageAsync()).Contains($"model_name=\"{model}\"", StringComparison.Ordinal))
                continue;
            var page = await Deadline.UntilAsync(PageAsync, text => Sum(text, "vllm:num_requests_running") == 0);
            return ((long)Sum(page, "vllm:prompt_tokens_total"), (long)Sum(page, "vllm:generation_tokens_total"));
        }
        throw new InvalidOperationException($"no engine serves {model}");
    }

    private static double Sum(string page, string name) => page.Split('\n').Where(line => line.StartsWith(name + "{", StringComparison.Ordinal))
        .Sum(line => double.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture));

    private sealed record Row(int KeyId, long Requests, long Aborted, long Failed, long Prompt, long Completion);

    /// <summary>The clients of the keys, and what they know of their use.</summary>
    private sealed class Traffic(Uri url, string[] keys) : IDisposable
    {
        // what an abandoned stream would still send is not waited for
        private readonly HttpClient _client = new(new SocketsHttpHandler { ResponseDrainTimeout = TimeSpan.Zero }) { BaseAddress = url, Timeout = TimeSpan.FromMinutes(2) };
        private readonly ConcurrentDictionary<(string Family, int Prompt), long> _promptTokens = new();
        private readonly ConcurrentBag<(int Key, string Family, int Prompt, int Tokens)> _answered = [];
        private readonly int[] _failed = new int[keys.Length];
        private int _sent, _left;
        private long _eventsRead;

        public int Sent => _sent;

        public int Left => _left;

        public long EventsRead => _eventsRead;

        public ConcurrentQueue<string> Unexpected { get; } = [];

        /// <summary>What a key has used as its answers say. A stream that tells no count had the prompt of one that did, and its limit of tokens.</summary>
        public (long Requests, long Failed, long Prompt, long Completion) Expected(int key)
        {
            var answered = _answered.Where(answer => answer.Key == key).ToArray();
            return (answered.Length + _failed[key], _failed[key], answered.Sum(answer => _promptTokens[(answer.Family, answer.Prompt)]), answered.Sum(answer => answer.Tokens));
        }

        public async Task SendAsync(Random random)
        {
            Interlocked.Increment(ref _sent);
            var (kind, key, prompt, tokens) = (Kinds[random.Next(Kinds.Length)], random.Next(keys.Length), random.Next(Prompts), random.Next(1, MostTokens + 1));
            var family = kind.Split('-')[0];
            var stream = kind.Contains("stream", StringComparison.Ordinal);
            var text = $"\"Tell me {string.Concat(Enumerable.Repeat("something ", prompt + 1))}.\"";
            var (path, body) = kind switch
            {
                "no-json" => ("chat/completions", "{"),
                "no-model" => ("chat/completions", "{\"model\":\"no/such\"}"),
                "refused" => ("chat/completions", $$"""{"model":"{{Exact}}","temperature":-1,"messages":[{"role":"user","content":{{text}}}]}"""),
                _ => family switch
                {
                    "completion" => ("completions", $$"""{"model":"{{Exact}}","prompt":{{text}},"max_tokens":{{tokens}}"""),
                    "responses" => ("responses", $$"""{"model":"{{Exact}}","input":{{text}},"max_output_tokens":{{tokens}}"""),
                    "messages" => ("messages", $$"""{"model":"{{Exact}}","messages":[{"role":"user","content":{{text}}}],"max_tokens":{{tokens}}"""),
                    _ => ("chat/completions", $$"""{"model":"{{Exact}}","messages":[{"role":"user","content":{{text}}}],"max_tokens":{{tokens}}"""),
                } is var (route, begin) ? (route, $"{begin}{(stream ? ",\"stream\":true" : "")}{(kind.EndsWith("counted", StringComparison.Ordinal) ? ",\"stream_options\":{\"include_usage\":true}" : "")}}}") : default,
            };
            using var request = Request(path, body, kind == "no-key" ? "none" : keys[key]);
            using var answer = await _client.SendAsync(request, Ct);
            var got = await answer.Content.ReadAsStringAsync(Ct);
            var expected = kind switch { "refused" or "no-json" => HttpStatusCode.BadRequest, "no-model" => HttpStatusCode.NotFound, "no-key" => HttpStatusCode.Unauthorized, _ => HttpStatusCode.OK };
            if (answer.StatusCode != expected)
                Unexpected.Enqueue($"{kind}: {(int)answer.StatusCode} {got}");
            else if (kind == "refused")
                Interlocked.Increment(ref _failed[key]);
            else if (expected == HttpStatusCode.OK)
                See(kind, family, stream, key, prompt, tokens, got);
        }

        private void See(string kind, string family, bool stream, int key, int prompt, int tokens, string got)
        {
            _answered.Add((key, family, prompt, tokens));
            var asked = kind is not ("chat-stream" or "completion-stream");
            if (stream && got.Contains("\"usage\":{", StringComparison.Ordinal) != asked)
                Unexpected.Enqueue($"{kind}: the count is there: {!asked}");
            if (stream)
                return;
            var usage = JsonDocument.Parse(got).RootElement.GetProperty("usage");
            var (read, written) = usage.TryGetProperty("prompt_tokens", out var first)
                ? (first.GetInt64(), usage.GetProperty("completion_tokens").GetInt64())
                : (usage.GetProperty("input_tokens").GetInt64(), usage.GetProperty("output_tokens").GetInt64());
            if (written != tokens || _promptTokens.GetOrAdd((family, prompt), read) != read)
                Unexpected.Enqueue($"{kind}: {usage}");
        }

        /// <summary>Reads some events of a long stream and leaves.</summary>
        public async Task LeaveAsync(Random random)
        {
            Interlocked.Increment(ref _left);
            using var request = Request("chat/completions",
                $$"""{"model":"{{Aborted}}","messages":[{"role":"user","content":"Go on."}],"max_tokens":{{AbortedTokens}},"stream":true}""", keys[random.Next(keys.Length)]);
            using var answer = await _client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
            if (answer.StatusCode != HttpStatusCode.OK)
                Unexpected.Enqueue($"given up: {(int)answer.StatusCode}");
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
            for (var events = random.Next(1, 6); events >= 0; events--)
            {
                while (await reader.ReadLineAsync(Ct) is { Length: > 0 } line)
                {
                    if (line.Contains("\"content\":", StringComparison.Ordinal) && !line.Contains("\"role\":", StringComparison.Ordinal))
                        Interlocked.Increment(ref _eventsRead);
                }
            }
        }

        public void Dispose() => _client.Dispose();

        private static HttpRequestMessage Request(string path, string body, string key) => new(HttpMethod.Post, $"/v1/{path}")
        {
            Content = new StringContent(body, Encoding.UTF8, "application/json"),
            Headers = { Authorization = new AuthenticationHeaderValue("Bearer", key) },
        };
    }
}
