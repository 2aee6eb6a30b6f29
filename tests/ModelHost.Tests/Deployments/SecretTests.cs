using System.Collections.Concurrent;
using System.Net;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
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
        });
        var (node, outputs) = (await host.Client.NodeAsync("process"), new List<string>());
        async Task<JsonElement> SendAsync(string route, JsonObject body, HttpStatusCode status = HttpStatusCode.OK)
        {
            using var answer = await host.Client.PostAsync(route, body, "key-" + outputs.Count);
            outputs.Add(await answer.Content.ReadAsStringAsync(Ct));
            answer.StatusCode.ShouldBe(status, outputs[^1]);
            return JsonDocument.Parse(outputs[^1]).RootElement;
        }

        var started = (await SendAsync("/start", Request(node, 8101, "demo/started"))).Id();
        var recorded = (await SendAsync("/", Request(node, 8102, "demo/recorded"))).Id();
        await SendAsync("/plan", Request(node, 8103, "demo/planned"));
        await host.Client.StatusAsync(started, "running");
        var manifest = JsonNode.Parse(await host.Client.GetStringAsync(new Uri($"/api/deployments/{recorded}/manifest", UriKind.Relative), Ct));
        var imported = (await SendAsync("/from-manifest", new JsonObject { ["manifest"] = manifest, ["node_id"] = node, ["port"] = 8104, ["owner"] = "tests", ["env_vars"] = Secret() })).Id();
        await host.Client.StatusAsync(imported, "running");
        await host.Client.StopModelAsync(imported);
        await SendAsync($"/{recorded}/restart", new JsonObject { ["owner"] = "tests" });
        await host.Client.StatusAsync(recorded, "running");
        // refusals must not repeat what they refuse
        await SendAsync("/start", Request(node, 8101, "demo/again"), HttpStatusCode.Conflict);
        await SendAsync("/start", Request(node, 80, "demo/again"), HttpStatusCode.BadRequest);
        await SendAsync("/start", Request(node, 8105, "demo/again", key: "PATH"), HttpStatusCode.BadRequest);
        await SendAsync($"/{imported}/restart", new JsonObject { ["owner"] = "tests", ["env_vars"] = Secret() }, HttpStatusCode.BadRequest);
        foreach (var id in (int[])[started, recorded, imported])
        {
            foreach (var read in (string[])["", "/logs", "/logs/download", "/manifest"])
                outputs.Add(await host.Client.GetStringAsync(new Uri($"/api/deployments/{id}{read}", UriKind.Relative), Ct));
        }
        foreach (var path in (string[])["/api/deployments", "/api/nodes", "/metrics", "/openapi.json", "/", "/v1/models"])
            outputs.Add(await host.Client.GetStringAsync(new Uri(path, UriKind.Relative), Ct));
        var specs = host.Services.GetRequiredService<NodeRegistry>().All.SelectMany(handle => handle.LastReport!.Engines).Select(engine => engine.LaunchSpec).ToArray();
        var files = Directory.GetFiles(host.Node.Data, "*", SearchOption.AllDirectories).Where(file => Path.GetFileName(file) != "lock").ToArray();
        var holding = files.Where(file => Read(file).Contains(Canary, StringComparison.Ordinal)).ToArray();
        var vault = host.Services.GetRequiredService<EnvironmentVault>();
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        var kept = (await db.Deployments.AsNoTracking().ToListAsync(Ct)).Select(row => vault.Open(row.EnvValues)!.GetValueOrDefault("HF_TOKEN")).ToArray();
        await host.Client.StopModelAsync(started);
        await host.Client.StopModelAsync(recorded);

        kept.ShouldBe([Canary, Canary, Canary]);
        outputs.Count.ShouldBeGreaterThan(25);
        outputs.ShouldAllBe(text => !text.Contains(Canary));
        specs.Length.ShouldBe(2);
        specs.ShouldAllBe(spec => spec.Contains("HF_TOKEN") && !spec.Contains(Canary));
        files.ShouldContain(file => file.EndsWith("modelhost.db", StringComparison.Ordinal));
        holding.ShouldBeEmpty();
        log.Lines.ShouldNotBeEmpty();
        log.Lines.ShouldAllBe(line => !line.Contains(Canary));
    }

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

    private static JsonObject Request(int node, int port, string model, string key = "HF_TOKEN") => Api.StartRequest(node, port, model, change: r => r["env_vars"] = Secret(key));

    private static JsonArray Secret(string key = "HF_TOKEN") => [new JsonObject { ["key"] = key, ["value"] = Canary }];

    private static string Read(string file)
    {
        using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        using var bytes = new MemoryStream();
        stream.CopyTo(bytes);
        return Encoding.Latin1.GetString(bytes.ToArray());
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
