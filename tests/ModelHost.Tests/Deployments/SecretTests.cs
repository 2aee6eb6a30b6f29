using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Routing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Values of variables: they go to the engine, and are shown and kept nowhere.</summary>
public sealed class SecretTests
{
    private const string Canary = "canary-4f1d9c";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_value_given_on_any_route_is_shown_and_kept_nowhere()
    {
        var log = new CapturedLog();
        await using var host = await ControlPlane.StartAsync(configure: services =>
        {
            services.AddSingleton<ILoggerProvider>(log);
            services.Configure<LoggerFilterOptions>(filter => filter.Rules.Add(new LoggerFilterRule(typeof(CapturedLog).FullName, null, LogLevel.Trace, null)));
        }, configuration: "Lifecycle:RelaunchDelay=00:00:00.050");
        var said = new Recorder();
        using var client = new HttpClient(said) { BaseAddress = host.Url };
        await using var socket = await EventSocket.OpenAsync(host.Url);
        var node = await client.NodeAsync("process");
        Task<HttpResponseMessage> PutAsync(string path, string body) => client.PutAsync(new Uri(path, UriKind.Relative), Text(body), Ct);
        Task<HttpResponseMessage> RawAsync(string path, string body) => client.PostAsync(new Uri(path, UriKind.Relative), Text(body), Ct);
        Task<string> GetAsync(string path) => client.GetStringAsync(new Uri(path, UriKind.Relative), Ct);

        // every way in
        var started = (await client.PostedAsync("/start", Request(node, 8101, "demo/started"), "key-1")).Id();
        var recorded = (await client.PostedAsync("/", Request(node, 8102, "demo/recorded"), "key-2")).Id();
        await client.PostedAsync("/plan", Request(node, 8103, "demo/planned"));
        await client.StatusAsync(started, "running");
        var manifest = JsonNode.Parse(await GetAsync($"/api/deployments/{recorded}/manifest"));
        var imported = (await client.PostedAsync(
            "/from-manifest", new JsonObject { ["manifest"] = manifest, ["node_id"] = node, ["port"] = 8104, ["owner"] = "tests", ["env_vars"] = Secret() }, "key-3")).Id();
        await client.StatusAsync(imported, "running");
        await client.StopModelAsync(imported);
        await client.PostedAsync($"/{recorded}/restart", new JsonObject { ["owner"] = "tests", ["duration_seconds"] = 3600 });
        await client.StatusAsync(recorded, "running");
        var failing = (await client.PostedAsync("/start", Request(node, 8106, "demo/failing", change: r =>
        {
            r["env_vars"]!.AsArray().Add(new JsonObject { ["key"] = "VLLM_SIM_FAIL", ["value"] = "oom" });
            r["max_failed_restarts"] = 1;
        }))).Id();
        await client.StatusAsync(failing, "error");
        var config = JsonDocument.Parse(await (await RawAsync("/api/configs", $$$"""{"name":"c","payload":{"env_vars":{{{Secret().ToJsonString()}}}}}""")).Content.ReadAsStringAsync(Ct)).RootElement.Id();
        await PutAsync($"/api/configs/{config}", $$$$"""{"name":"d","payload":{"env_vars":{"HF_TOKEN":"{{{{Canary}}}}"}}}""");
        // refusals must not repeat what they refuse
        foreach (var refused in (Task<HttpResponseMessage>[])
        [
            client.PostAsync("/start", Request(node, 8101, "demo/again")), client.PostAsync("/start", Request(node, 80, "demo/again")),
            client.PostAsync("/start", Request(node, 8105, "demo/again", key: "PATH")), client.PostAsync("/start", Request(node, 8101, "demo/again"), "key-1"),
            client.PostAsync($"/{imported}/restart", new JsonObject { ["owner"] = "tests", ["env_vars"] = Secret() }),
            client.PostAsync($"/{started}/extend", new JsonObject { ["hours"] = 1, ["env_vars"] = Secret() }), client.PostAsync($"/{started}/pin", new JsonObject { ["env_vars"] = Secret() }),
            client.PostAsync("/from-manifest", new JsonObject { ["manifest"] = new JsonObject { ["manifest_version"] = 1, ["env_vars"] = Secret() }, ["node_id"] = node, ["port"] = 8107, ["owner"] = "t" }),
            RawAsync("/api/deployments/start", $$"""{"env_vars":[{"key":"HF_TOKEN","value":["{{Canary}}"]}]}"""), RawAsync("/api/deployments/start", $$"""{"env_vars":"{{Canary}}"}"""),
            RawAsync("/api/deployments/start", $$"""{"env_vars":[{"key":"HF_TOKEN","value":"{{Canary}}" """), RawAsync("/api/deployments/start", Canary),
            RawAsync("/api/configs", $$$"""{"name":"d","payload":{"env_vars":{{{Secret().ToJsonString()}}}}}"""),
            RawAsync("/api/configs", $$$"""{"name":7,"payload":{"env_vars":{{{Secret().ToJsonString()}}}}}"""),
        ])
        {
            using var answer = await refused;
            answer.IsSuccessStatusCode.ShouldBeFalse(await answer.Content.ReadAsStringAsync(Ct));
        }
        // every way out
        foreach (var id in (int[])[started, recorded, imported, failing])
        {
            foreach (var read in (string[])["", "/logs", "/logs/download", "/manifest", "/runs"])
                await GetAsync($"/api/deployments/{id}{read}");
        }
        await client.PostedAsync($"/{recorded}/extend", new JsonObject { ["hours"] = 1 });
        await client.PostedAsync($"/{recorded}/pin", new JsonObject { ["pinned"] = true });
        await client.PostedAsync($"/{recorded}/start-on-demand", new JsonObject { ["start_on_demand"] = false });
        foreach (var path in (string[])
            ["/api/deployments", "/api/deployments/served-name/check?name=demo/started", "/api/nodes", $"/api/nodes/{node}/gpu-processes", "/api/configs", "/api/settings",
            "/api/settings/sources", "/api/health", "/api/vllm-version", "/api/p2p", "/api/p2p/token", "/health", "/vllm-version", "/metrics", "/openapi.json", "/", "/v1/models"])
        {
            using var answer = await client.GetAsync(new Uri(path, UriKind.Relative), Ct);
        }
        await PutAsync("/api/settings", """{"default_port":9001}""");
        await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/started", maxTokens: 2), Ct);
        await GetAsync("/api/usage");
        var token = JsonDocument.Parse(await (await RawAsync("/api/nodes/join-tokens", "{}")).Content.ReadAsStringAsync(Ct)).RootElement.Id();
        await GetAsync("/api/nodes/join-tokens");
        (await client.DeleteAsync(new Uri($"/api/nodes/join-tokens/{token}", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        var byHand = JsonDocument.Parse(await (await RawAsync("/api/nodes", """{"hostname":"gpu-7","ip_address":"10.0.0.7"}""")).Content.ReadAsStringAsync(Ct)).RootElement.Id();
        (await client.PatchAsync(new Uri($"/api/nodes/{byHand}", UriKind.Relative), Text("""{"port":9001}"""), Ct)).EnsureSuccessStatusCode();
        foreach (var (change, body) in (ValueTuple<string, string>[])[("runtime", """{"runtime":null}"""), ("warm-cache", """{"enabled":true}"""), ("maintenance", """{"enabled":true}""")])
            (await RawAsync($"/api/nodes/{byHand}/{change}", body)).EnsureSuccessStatusCode();
        foreach (var read in (string[])["", "/metrics/history", "/ports/check?port=9123"])
            await GetAsync($"/api/nodes/{node}{read}");
        (await client.DeleteAsync(new Uri("/api/nodes/987", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.NotFound);
        await GetAsync("/api/nodes/discovered");
        (await RawAsync("/api/nodes/discovered/987/admit", "")).StatusCode.ShouldBe(HttpStatusCode.NotFound);
        var install = JsonDocument.Parse(await (await RawAsync($"/api/nodes/{node}/backends/install?wait=true", """{"backend":"x"}""")).Content.ReadAsStringAsync(Ct)).RootElement;
        await GetAsync($"/api/backends/job/{install.GetProperty("jobID").GetString()}");
        await GetAsync($"/api/nodes/{node}/backends");
        await RawAsync($"/api/nodes/{node}/backends/upgrade", """{"backend":"x"}""");
        await RawAsync($"/api/nodes/{node}/backends/delete", """{"backend":"x"}""");
        var key = JsonDocument.Parse(await (await RawAsync("/api/api-keys", """{"label":"tests"}""")).Content.ReadAsStringAsync(Ct)).RootElement.Id();
        using (var refused = await RawAsync("/api/api-keys", $$"""{"label":"tests","models":"{{Canary}}"}"""))
            refused.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        await GetAsync("/api/api-keys");
        (await client.PatchAsync(new Uri($"/api/api-keys/{key}", UriKind.Relative), Text("""{"label":"other"}"""), Ct)).EnsureSuccessStatusCode();
        (await client.DeleteAsync(new Uri($"/api/api-keys/{key}?acknowledge_open_gateway=true", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        var specs = host.Services.GetRequiredService<NodeRegistry>().All.SelectMany(handle => handle.LastReport!.Engines).ToArray();
        var files = Directory.GetFiles(host.Node.Data, "*", SearchOption.AllDirectories).Where(file => Path.GetFileName(file) != "lock").ToArray();
        var holding = files.Where(file => Encoding.Latin1.GetString(FolderText.Bytes(file)).Contains(Canary, StringComparison.Ordinal)).ToArray();
        var vault = host.Services.GetRequiredService<EnvironmentVault>();
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        var kept = (await db.Deployments.AsNoTracking().ToListAsync(Ct)).Select(row => vault.Open(row.EnvValues)!.GetValueOrDefault("HF_TOKEN")).ToArray();
        await client.StopModelAsync(started);
        await client.StopModelAsync(recorded);
        (await client.DeleteAsync(new Uri($"/api/deployments/{started}", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        (await client.DeleteAsync(new Uri($"/api/configs/{config}", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        (await RawAsync("/api/admin/purge", "{}")).EnsureSuccessStatusCode();
        for (var message = await socket.NextAsync(); !message!.Contains("nodes_changed", StringComparison.Ordinal); message = await socket.NextAsync())
            said.Texts.Enqueue(message);

        kept.ShouldBe([Canary, Canary, Canary, Canary]);
        Unwalked(host, said).ShouldBeEmpty();
        said.Texts.Count.ShouldBeGreaterThan(50);
        said.Texts.ShouldAllBe(text => !text.Contains(Canary));
        specs.Length.ShouldBeGreaterThanOrEqualTo(2);
        specs.ShouldAllBe(engine => engine.LaunchSpec.Contains("HF_TOKEN") && !engine.ToString().Contains(Canary));
        files.ShouldContain(file => file.EndsWith("modelhost.db", StringComparison.Ordinal));
        holding.ShouldBeEmpty();
        log.Lines.ShouldNotBeEmpty();
        log.Lines.ShouldAllBe(line => !line.Contains(Canary));
    }

    /// <summary>The routes of the API that no request went to.</summary>
    private static IEnumerable<string> Unwalked(ControlPlane host, Recorder said) =>
        from endpoint in host.Services.GetServices<EndpointDataSource>().SelectMany(source => source.Endpoints).OfType<RouteEndpoint>()
        let pattern = "/" + endpoint.RoutePattern.RawText!.Trim('/')
        where pattern.StartsWith("/api", StringComparison.Ordinal)
        from method in endpoint.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods
        let walked = new Regex($"^{method} {Regex.Replace(pattern, @"\{[^}]*\}", "[^/]+")}/?$")
        where !said.Routes.Any(route => walked.IsMatch(route))
        select $"{method} {pattern}";

    [Theory]
    [InlineData("/start")]
    [InlineData("/")]
    [InlineData("/plan")]
    public async Task The_mask_is_refused_as_a_value(string route)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var id = await host.Client.StartModelAsync(Request(node.Id, 8101, "demo/read"));
        var masked = JsonNode.Parse((await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("env_vars").GetRawText());

        var detail = await host.Client.PostAsync(route, Api.StartRequest(node.Id, 8102, "demo/again", change: r => r["env_vars"] = masked))
            .ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", "env_vars");

        detail.ShouldBe("env_vars: the value of 'HF_TOKEN' is the mask that answers show; give the value itself");
    }

    private static JsonObject Request(int node, int port, string model, string key = "HF_TOKEN", Action<JsonObject>? change = null) => Api.StartRequest(node, port, model, change: r =>
    {
        r["env_vars"] = Secret(key);
        change?.Invoke(r);
    });

    private static StringContent Text(string body) => new(body, Encoding.UTF8, "application/json");

    private static JsonArray Secret(string key = "HF_TOKEN") => [new JsonObject { ["key"] = key, ["value"] = Canary }];

    /// <summary>Keeps what was asked and all that was answered, headers too.</summary>
    private sealed class Recorder() : DelegatingHandler(new SocketsHttpHandler())
    {
        public ConcurrentQueue<string> Routes { get; } = new();

        public ConcurrentQueue<string> Texts { get; } = new();

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            Routes.Enqueue($"{request.Method} {request.RequestUri!.AbsolutePath}");
            var answer = await base.SendAsync(request, cancellationToken);
            Texts.Enqueue($"{answer.Headers}{answer.Content.Headers}{await answer.Content.ReadAsStringAsync(cancellationToken)}");
            return answer;
        }
    }

    private sealed class CapturedLog : ILoggerProvider, ILogger
    {
        public ConcurrentQueue<string> Lines { get; } = new();

        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Lines.Enqueue($"{formatter(state, exception)} {exception}");

        public void Dispose()
        {
        }
    }
}
