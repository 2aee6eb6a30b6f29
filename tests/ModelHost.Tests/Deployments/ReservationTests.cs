using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Ports, names and secrets of deployments that are there.</summary>
public sealed class ReservationTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_port_and_a_name_have_one_holder_until_it_stops()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");
        var holder = await host.Client.StartModelAsync(Api.StartRequest(node, 8101, change: request =>
        {
            request["engine_args"] = new JsonObject { ["served_model_name"] = "chat" };
            request["lora_modules"] = new JsonArray(new JsonObject { ["name"] = "sql", ["path"] = "org/sql-lora" });
        }));

        await ConflictAsync(host, Api.StartRequest(node, 8101, "demo/other"), "deployment.port_taken", $"Port 8101 on {Dns.GetHostName()} is held by deployment {holder} (demo/tiny-chat).");
        await ConflictAsync(host, Named(node, "chat"), "deployment.name_taken", $"held by deployment {holder} (demo/tiny-chat)");
        await ConflictAsync(host, Named(node, "sql"), "deployment.name_taken", "The name 'sql' is held");
        await ConflictAsync(host, Api.StartRequest(node, 8102, "chat"), "deployment.name_taken", "The name 'chat' is held");
        await ConflictAsync(host, Api.StartRequest(node, 8102, "demo/other", change: request =>
            request["lora_modules"] = new JsonArray(new JsonObject { ["name"] = "chat", ["path"] = "org/lora" })), "deployment.name_taken", "The name 'chat' is held");
        await host.Client.StopModelAsync(holder);
        var next = await host.Client.StartModelAsync(Named(node, "chat", 8101));
        await host.Client.StopModelAsync(next);
    }

    [Fact]
    public async Task Of_two_starts_at_once_one_gets_the_port()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => host.Client.PostAsJsonAsync("/api/deployments/start", Api.StartRequest(node, 8101, $"demo/model-{i}"), Ct)));

        answers.Count(answer => answer.StatusCode == HttpStatusCode.OK).ShouldBe(1);
        answers.Count(answer => answer.StatusCode == HttpStatusCode.Conflict).ShouldBe(7);
        foreach (var deployment in (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().ToArray())
            await host.Client.StopModelAsync(deployment.GetProperty("id").GetInt32());
    }

    [Fact]
    public async Task Values_of_variables_are_shown_and_kept_nowhere()
    {
        const string Canary = "canary-4f1d9c";
        var log = new CapturedLog();
        await using var host = await ControlPlane.StartAsync(configure: services =>
        {
            services.AddSingleton<ILoggerProvider>(log);
            services.Configure<LoggerFilterOptions>(filter => filter.Rules.Add(new LoggerFilterRule(typeof(CapturedLog).FullName, null, LogLevel.Trace, null)));
        });
        var node = await host.Client.NodeAsync("process");
        var request = Api.StartRequest(node, change: r => r["env_vars"] = new JsonArray(new JsonObject { ["key"] = "HF_TOKEN", ["value"] = Canary }));

        using var started = await host.Client.PostAsJsonAsync("/api/deployments/start", request, Ct);
        var answer = await started.Content.ReadAsStringAsync(Ct);
        var id = JsonDocument.Parse(answer).RootElement.GetProperty("id").GetInt32();
        await host.Client.StatusAsync(id, "running");
        var reads = new List<string> { answer };
        foreach (var path in (string[])["/api/deployments", $"/api/deployments/{id}", $"/api/deployments/{id}/logs", "/api/nodes", "/metrics", "/", "/v1/models"])
            reads.Add(await host.Client.GetStringAsync(new Uri(path, UriKind.Relative), Ct));
        var files = Directory.GetFiles(host.Node.Data, "*", SearchOption.AllDirectories).Where(file => Path.GetFileName(file) != "lock").ToArray();
        var holding = files.Where(file => Read(file).Contains(Canary, StringComparison.Ordinal)).ToArray();
        await host.Client.StopModelAsync(id);

        reads.ShouldAllBe(text => !text.Contains(Canary));
        JsonDocument.Parse(answer).RootElement.GetProperty("env_vars").ToString().ShouldBe("""[{"key":"HF_TOKEN","value":"********"}]""");
        files.ShouldContain(file => file.EndsWith("modelhost.db", StringComparison.Ordinal));
        holding.ShouldBeEmpty();
        log.Lines.ShouldNotBeEmpty();
        log.Lines.ShouldAllBe(line => !line.Contains(Canary));
    }

    [Fact]
    public async Task A_row_that_cannot_be_read_is_shown_and_holds_up_nobody()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await host.Client.NodeAsync("process");
        await using (var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct))
        {
            db.Deployments.Add(new Deployment
            {
                Uid = Guid.NewGuid().ToString(),
                NodeId = node,
                Spec = """{"version":99}""",
                Wanted = WantedState.Running,
                Status = DeploymentStatus.Running,
                RunId = Guid.NewGuid().ToString("N"),
                ReservedPort = 8105,
            });
            await db.SaveChangesAsync(Ct);
        }

        var id = await host.Client.StartModelAsync(Api.StartRequest(node));
        await host.Client.StatusAsync(id, "running");
        var listed = await host.Client.JsonAsync("/api/deployments");
        await host.Client.StopModelAsync(id);

        listed.EnumerateArray().Select(d => (d.GetProperty("model_name").GetString(), d.GetProperty("port").GetInt32())).ShouldContain(("unknown", 8105));
    }

    private static string Read(string file)
    {
        using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        using var bytes = new MemoryStream();
        stream.CopyTo(bytes);
        return Encoding.Latin1.GetString(bytes.ToArray());
    }

    private static JsonObject Named(int node, string name, int port = 8102) =>
        Api.StartRequest(node, port, "demo/other", change: request => request["engine_args"] = new JsonObject { ["served_model_name"] = name });

    private static async Task ConflictAsync(ControlPlane host, JsonObject request, string code, string detail)
    {
        using var answer = await host.Client.PostAsJsonAsync("/api/deployments/start", request, Ct);
        var problem = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.Conflict, problem.ToString());
        problem.GetProperty("code").GetString().ShouldBe(code);
        problem.GetProperty("detail").GetString()!.ShouldContain(detail);
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
