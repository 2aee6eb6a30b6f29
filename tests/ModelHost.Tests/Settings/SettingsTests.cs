using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Settings;
using ModelHost.TestKit;
using ModelHost.Tests.Gateway;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Settings;

/// <summary>Runtime settings: the values of the published page, what is refused, and that they act at once.</summary>
public sealed class SettingsTests
{
    private static readonly Uri Route = new("/api/settings", UriKind.Relative);

    // the table of the API page
    private const string Defaults = """
        {"gateway_enabled":true,"gateway_timeout_seconds":600,"start_timeout_seconds":1800,"preferred_container_runtime":"docker","default_port":8001,
         "default_gpu_fraction":0.5,"default_duration_choice":"43200","default_vllm_version":"","default_max_failed_restarts":null,"webhook_url":"",
         "expiry_warning_minutes":30,"node_metrics_retention_hours":48,"temp_api_key_ttl_seconds":300,"default_warm_offload_enabled":true,
         "busy_guard_seconds":0,"nodes_sync_interval_seconds":10,"deployments_sync_interval_seconds":5,"expiry_check_interval_seconds":30,
         "node_failure_threshold":3,"deployment_failure_threshold":3}
        """;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public static TheoryData<string, string, string> Ranges => new()
    {
        { "gateway_timeout_seconds", "10", "86400" },
        { "start_timeout_seconds", "60", "86400" },
        { "default_port", "1024", "65535" },
        { "default_gpu_fraction", "0.05", "1.0" },
        { "default_max_failed_restarts", "1", "20" },
        { "expiry_warning_minutes", "1", "1440" },
        { "node_metrics_retention_hours", "1", "8760" },
        { "temp_api_key_ttl_seconds", "0", "3600" },
        { "busy_guard_seconds", "0", "300" },
        { "nodes_sync_interval_seconds", "1", "300" },
        { "deployments_sync_interval_seconds", "1", "300" },
        { "expiry_check_interval_seconds", "5", "600" },
        { "node_failure_threshold", "1", "20" },
        { "deployment_failure_threshold", "1", "20" },
    };

    [Theory]
    [InlineData("/api/settings")]
    [InlineData("/api/settings/")]
    public async Task All_twenty_have_the_defaults_of_the_page(string path)
    {
        await using var host = await StartAsync();

        var all = await host.Client.JsonAsync(path);

        JsonElement.DeepEquals(all, JsonDocument.Parse(Defaults).RootElement).ShouldBeTrue(all.ToString());
    }

    [Fact]
    public async Task The_document_shows_what_a_change_may_hold()
    {
        await using var host = await StartAsync();

        var document = await host.Client.JsonAsync("/openapi.json");

        var schema = document.GetProperty("paths").GetProperty("/api/settings").GetProperty("put").GetProperty("requestBody").GetProperty("content").GetProperty("application/json").GetProperty("schema");
        schema.TryGetProperty("required", out _).ShouldBeFalse();
        var properties = schema.GetProperty("properties");
        properties.EnumerateObject().Count().ShouldBe(20);
        properties.EnumerateObject().ShouldAllBe(property => property.Value.GetProperty("description").GetString()!.Length > 10);
        (properties.GetProperty("default_port").GetProperty("minimum").GetInt32(), properties.GetProperty("default_port").GetProperty("maximum").GetInt32()).ShouldBe((1024, 65535));
    }

    [Theory]
    [MemberData(nameof(Ranges))]
    public async Task Both_ends_of_a_range_are_taken_and_what_is_beyond_names_field_value_and_rule(string key, string first, string last)
    {
        await using var host = await StartAsync();
        foreach (var end in (string[])[first, last])
            (await host.Client.JsonAsync(await PutAsync(host, $$"""{"{{key}}":{{end}}}"""))).GetProperty(key).GetDouble().ShouldBe(double.Parse(end, System.Globalization.CultureInfo.InvariantCulture));
        var isWhole = !first.Contains('.', StringComparison.Ordinal);
        var (below, above) = isWhole ? ($"{int.Parse(first) - 1}", $"{int.Parse(last) + 1}") : ("0.04", "1.5");

        foreach (var beyond in (string[])[below, above])
        {
            var detail = await RefusedAsync(host, $$"""{"{{key}}":{{beyond}}}""", key);
            detail.ShouldContain(beyond);
            detail.ShouldContain(isWhole ? first : "0.05");
            detail.ShouldContain(isWhole ? last : "1");
        }
    }

    [Theory]
    [InlineData("default_port", "80")]
    [InlineData("default_port", "\"8001\"")]
    [InlineData("default_port", "8001.5")]
    [InlineData("default_port", "99999999999")]
    [InlineData("default_port", "[8001]")]
    [InlineData("default_gpu_fraction", "1.5")]
    [InlineData("default_gpu_fraction", "\"0.5\"")]
    [InlineData("default_duration_choice", "\"custom\"")]
    [InlineData("default_duration_choice", "3600")]
    [InlineData("default_duration_choice", "\"\"")]
    [InlineData("webhook_url", "\"ftp://example.org/x\"")]
    [InlineData("webhook_url", "\"example.org\"")]
    [InlineData("webhook_url", "\"javascript:alert(1)\"")]
    [InlineData("webhook_url", "\"\\ud800\"")]
    [InlineData("nodes_sync_interval_seconds", "0")]
    [InlineData("preferred_container_runtime", "\"lxc\"")]
    [InlineData("preferred_container_runtime", "\"Docker\"")]
    [InlineData("gateway_enabled", "1")]
    [InlineData("gateway_enabled", "\"true\"")]
    [InlineData("default_vllm_version", "\"a b\"")]
    [InlineData("default_max_failed_restarts", "0")]
    [InlineData("default_max_failed_restarts", "\"\"")]
    [InlineData("default_prot", "8001")]
    [InlineData("", "1")]
    public async Task A_value_that_is_not_allowed_is_named_and_nothing_is_written(string key, string value)
    {
        await using var host = await StartAsync();

        var detail = await RefusedAsync(host, $$"""{"gateway_timeout_seconds":30,"{{key}}":{{value}},"start_timeout_seconds":90}""", key);

        detail.ShouldContain(key == "default_prot" ? "default_port" : key.Length == 0 ? "is no setting" : value);
        JsonElement.DeepEquals(await host.Client.JsonAsync("/api/settings"), JsonDocument.Parse(Defaults).RootElement).ShouldBeTrue();
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("\"x\"")]
    [InlineData("{}")]
    [InlineData("{\"default_port\":null}")]
    [InlineData("{\"default_port\":null,\"webhook_url\":null}")]
    [InlineData("{\"\\ud800\":1}")]
    public async Task With_nothing_usable_the_body_is_refused(string body)
    {
        await using var host = await StartAsync();

        await RefusedAsync(host, body, "");
    }

    [Fact]
    public async Task All_faults_are_named_at_once()
    {
        await using var host = await StartAsync();

        using var answer = await host.Client.PutAsync(Route, Json("""{"default_port":80,"nope":1,"busy_guard_seconds":"5"}"""), Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("errors").EnumerateObject().Select(error => error.Name)
            .ShouldBe(["default_port", "nope", "busy_guard_seconds"], ignoreOrder: true);
    }

    [Fact]
    public async Task A_body_of_nothing_but_nonsense_has_a_short_answer()
    {
        await using var host = await StartAsync();
        var body = new JsonObject(Enumerable.Range(0, 20_000).Select(i => KeyValuePair.Create($"k{i}", (JsonNode?)null)));

        using var answer = await host.Client.PutAsync(Route, Json(body.ToJsonString()), Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        (await answer.Content.ReadAsByteArrayAsync(Ct)).Length.ShouldBeLessThan(200_000);
    }

    [Fact]
    public async Task Null_clears_the_restarts_and_nothing_else()
    {
        await using var host = await StartAsync("Settings:DefaultMaxFailedRestarts=7");
        (await host.Client.JsonAsync("/api/settings")).GetProperty("default_max_failed_restarts").GetInt32().ShouldBe(7);

        await PutAsync(host, """{"default_max_failed_restarts":null,"default_port":null}""");

        var all = await host.Client.JsonAsync("/api/settings");
        all.GetProperty("default_max_failed_restarts").ValueKind.ShouldBe(JsonValueKind.Null);
        all.GetProperty("default_port").GetInt32().ShouldBe(8001);
        (await host.Client.JsonAsync("/api/settings/sources")).GetProperty("default_port").GetString().ShouldBe("default");
    }

    [Fact]
    public async Task The_answer_to_a_change_is_all_settings_and_it_outlives_a_restart()
    {
        using var node = new TestNode();
        await using (var first = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode))
        {
            using var answer = await first.Client.PutAsync(Route, Json("""{"default_vllm_version":"v0.11.0","webhook_url":"https://hooks.example.org/x?y=1","default_gpu_fraction":0.9}"""), Ct);
            var all = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
            all.EnumerateObject().Count().ShouldBe(20);
            all.GetProperty("default_gpu_fraction").GetDouble().ShouldBe(0.9);
        }
        await using var second = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode);

        var kept = await second.Client.JsonAsync("/api/settings");

        (kept.GetProperty("default_vllm_version").GetString(), kept.GetProperty("webhook_url").GetString()).ShouldBe(("v0.11.0", "https://hooks.example.org/x?y=1"));
    }

    [Fact]
    public async Task The_database_goes_before_the_configuration_and_that_before_the_default()
    {
        await using var host = await StartAsync("Settings:DefaultPort=9000", "Settings:BusyGuardSeconds=60", "Settings:StartTimeoutSeconds=1800");
        await PutAsync(host, """{"default_port":9100}""");

        var (all, sources) = (await host.Client.JsonAsync("/api/settings"), await host.Client.JsonAsync("/api/settings/sources"));

        (all.GetProperty("default_port").GetInt32(), sources.GetProperty("default_port").GetString()).ShouldBe((9100, "database"));
        (all.GetProperty("busy_guard_seconds").GetInt32(), sources.GetProperty("busy_guard_seconds").GetString()).ShouldBe((60, "configuration"));
        (all.GetProperty("start_timeout_seconds").GetInt32(), sources.GetProperty("start_timeout_seconds").GetString()).ShouldBe((1800, "configuration"));
        (all.GetProperty("expiry_warning_minutes").GetInt32(), sources.GetProperty("expiry_warning_minutes").GetString()).ShouldBe((30, "default"));
        sources.EnumerateObject().Select(source => source.Name).ShouldBe(all.EnumerateObject().Select(setting => setting.Name), ignoreOrder: true);
    }

    [Fact]
    public async Task The_settings_file_is_a_configuration_too()
    {
        using var node = new TestNode();
        await File.WriteAllTextAsync(Path.Combine(node.Data, "modelhost.json"), """{"Settings":{"PreferredContainerRuntime":"podman"}}""", Ct);
        await using var host = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode);

        (await host.Client.JsonAsync("/api/settings")).GetProperty("preferred_container_runtime").GetString().ShouldBe("podman");
    }

    [Theory]
    [InlineData("Settings:DefaultPort=80", "Settings:DefaultPort=80")]
    [InlineData("Settings:PreferredContainerRuntime=lxc", "must be docker or podman")]
    [InlineData("Settings:WebhookUrl=ftp://x", "must be empty or an http or https address")]
    public async Task A_configuration_that_cannot_be_is_refused_at_start(string setting, string named) =>
        (await Should.ThrowAsync<OptionsValidationException>(() => StartAsync(setting))).Message.ShouldContain(named);

    [Fact]
    public async Task What_another_version_stored_is_passed_over_and_said()
    {
        using var node = new TestNode();
        using var lines = new LogLines();
        await using (var first = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode))
        {
            await using var db = await first.Services.GetRequiredService<Database>().OpenAsync(Ct);
            db.Settings.AddRange(
                new SettingValue { Key = "from_the_future", Value = "1" },
                new SettingValue { Key = "default_port", Value = "80" },
                new SettingValue { Key = "busy_guard_seconds", Value = "{" },
                new SettingValue { Key = "expiry_warning_minutes", Value = "45" });
            await db.SaveChangesAsync(Ct);
        }
        await using var second = await ControlPlane.StartAsync(node, configure: services =>
        {
            ScriptedNode.WithoutLocalNode(services);
            services.AddSingleton<ILoggerProvider>(lines);
        });

        var all = await second.Client.JsonAsync("/api/settings");

        all.EnumerateObject().Count().ShouldBe(20);
        (all.GetProperty("default_port").GetInt32(), all.GetProperty("expiry_warning_minutes").GetInt32()).ShouldBe((8001, 45));
        foreach (var key in (string[])["from_the_future", "default_port", "busy_guard_seconds"])
            lines.All.ShouldContain(line => line.Contains($"The stored setting {key} is passed over", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Changes_at_the_same_moment_all_stay()
    {
        await using var host = await StartAsync();
        var keys = Ranges.Select(row => row.Data).Where(row => row.Item2 != "0.05").Select(row => row.Item1).ToArray();

        await Task.WhenAll(keys.Select(key => PutAsync(host, $$"""{"{{key}}":{{(key == "default_port" ? 2000 : key.EndsWith("timeout_seconds", StringComparison.Ordinal) ? 100 : 15)}}}""")));

        var sources = await host.Client.JsonAsync("/api/settings/sources");
        keys.ShouldAllBe(key => sources.GetProperty(key).GetString() == "database");
        (await host.Client.JsonAsync("/api/settings")).GetProperty("node_failure_threshold").GetInt32().ShouldBe(15);
    }

    [Fact]
    public async Task The_gateway_is_switched_off_and_on_at_once()
    {
        await using var host = await StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, context => context.Request.Body.CopyToAsync(Stream.Null, Ct));

        await PutAsync(host, """{"gateway_enabled":false}""");

        foreach (var (method, path) in ((string, string)[])[("GET", "/v1/models"), ("GET", "/v1/models/m"), ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings"), ("GET", "/v1/nothing")])
        {
            using var request = new HttpRequestMessage(new HttpMethod(method), path) { Content = method == "POST" ? Json("{\"model\":\"m\"}") : null };
            using var answer = await host.Client.SendAsync(request, Ct);
            await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.ServiceUnavailable, "gateway_disabled");
        }
        engine.Requests.ShouldBe(0);
        (await host.Client.GetAsync(Route, Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
        await PutAsync(host, """{"gateway_enabled":true}""");
        (await host.Client.PostAsync(new Uri("/v1/chat/completions", UriKind.Relative), Json("{\"model\":\"m\"}"), Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task A_call_that_is_not_streamed_has_a_total_and_a_stream_has_none()
    {
        await using var host = await StartAsync();
        var last = new TaskCompletionSource();
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await context.Request.Body.CopyToAsync(Stream.Null, Ct);
            if (context.Request.Headers["X-Request-Id"] == "whole")
                await Task.Delay(Timeout.Infinite, context.RequestAborted);
            context.Response.ContentType = "text/event-stream";
            while (!last.Task.IsCompleted)
            {
                await context.Response.WriteAsync("data: 1\n\n", Ct);
                await context.Response.Body.FlushAsync(Ct);
                await Task.WhenAny(last.Task, Task.Delay(100, Ct));
            }
            await context.Response.WriteAsync("data: last\n\n", Ct);
        });
        await PutAsync(host, """{"gateway_timeout_seconds":10}""");

        using var stream = await SendAsync(host, """{"model":"m","stream":true}""", "stream");
        using var unasked = await SendAsync(host, """{"model":"m"}""", "stream");
        using var answer = await SendAsync(host, """{"messages":[{"stream":true}],"model":"m"}""", "whole");

        await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.GatewayTimeout, "deployment_timeout");
        last.SetResult(); // later than the total
        (await stream.Content.ReadAsStringAsync(Ct)).ShouldEndWith("data: last\n\n");
        (await unasked.Content.ReadAsStringAsync(Ct)).ShouldEndWith("data: last\n\n");
    }

    [Fact]
    public async Task How_often_a_node_is_looked_at_changes_at_once()
    {
        await using var host = await StartAsync("Settings:NodesSyncIntervalSeconds=300", "Settings:DeploymentsSyncIntervalSeconds=300", "Settings:ExpiryCheckIntervalSeconds=600");
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        await NodeStatusAsync(host, "online");

        await PutAsync(host, """{"deployments_sync_interval_seconds":1}""");

        var before = node.Passes;
        await Deadline.UntilAsync(() => node.Passes >= before + 3, Deadline.Allowed(30).TotalSeconds, "three more looks");
    }

    [Fact]
    public async Task The_thresholds_decide_when_silence_counts_each_for_itself()
    {
        await using var host = await StartAsync("Settings:NodesSyncIntervalSeconds=5", "Settings:DeploymentsSyncIntervalSeconds=5"); // twenty looks take longer than all of this
        await PutAsync(host, """{"node_failure_threshold":20,"deployment_failure_threshold":20}""");
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        await NodeStatusAsync(host, "online");
        var id = await host.Client.StartModelAsync(Api.StartRequest(node.Id));
        await host.Client.StatusAsync(id, "running");
        await using var socket = await EventSocket.OpenAsync(host.Url);

        node.IsSilent = true;

        await NodeStatusAsync(host, "degraded");
        await socket.NextAsync("nodes_changed");
        await PutAsync(host, """{"node_failure_threshold":1}""");
        await NodeStatusAsync(host, "critical");
        await socket.NextAsync("nodes_changed");
        (await host.Client.JsonAsync($"/api/deployments/{id}")).GetProperty("status").GetString().ShouldBe("running");
        await PutAsync(host, """{"deployment_failure_threshold":1}""");
        await host.Client.StatusAsync(id, "unreachable");
        node.IsSilent = false;
        await NodeStatusAsync(host, "online");
        await host.Client.StatusAsync(id, "running");
    }

    [Fact]
    public async Task Being_asked_often_makes_no_node_dead_sooner()
    {
        await using var host = await StartAsync("Settings:NodesSyncIntervalSeconds=300", "Settings:DeploymentsSyncIntervalSeconds=300");
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        await NodeStatusAsync(host, "online");
        node.IsSilent = true;
        var registry = host.Services.GetRequiredService<Features.Nodes.NodeRegistry>();
        var before = node.Passes;

        await Deadline.UntilAsync(() =>
        {
            registry.Wake(node.Id);
            return node.Passes >= before + 5;
        });

        await NodeStatusAsync(host, "degraded");
        registry.Find(node.Id)!.Failures.ShouldBe(1);
    }

    [Theory]
    [InlineData("docker,podman", "docker,podman", "podman", "podman")]
    [InlineData("docker,podman", "docker,podman", "docker", "docker")]
    [InlineData("docker,podman", "podman", "docker", "podman")]
    [InlineData("docker,podman", "process,docker", "podman", "docker")]
    [InlineData("process", "docker,process", "docker", "process")]
    [InlineData("docker,podman", "process", "docker", null)]
    [InlineData("docker,podman", "", "docker", null)]
    public void The_preferred_runtime_decides_where_several_are_possible(string usable, string available, string preferred, string? chosen) =>
        RuntimeChoice.Choose(usable.Split(','), available.Split(',', StringSplitOptions.RemoveEmptyEntries), preferred).ShouldBe(chosen);

    [Theory]
    [InlineData(null, "podman", "podman")]
    [InlineData("docker", "podman", "docker")]
    [InlineData("process", "podman", "podman")]
    [InlineData(null, null, "docker")]
    public void A_runtime_that_is_preferred_more_goes_first_where_it_is_possible(string? first, string? second, string chosen) =>
        RuntimeChoice.Choose(["docker", "podman"], ["podman", "docker", "process"], first, second).ShouldBe(chosen);

    [Fact]
    public async Task A_secret_in_the_webhooks_address_is_in_no_log_and_no_event()
    {
        using var lines = new LogLines();
        await using var host = await ControlPlane.StartAsync(configure: services =>
        {
            ScriptedNode.WithoutLocalNode(services);
            services.AddSingleton<ILoggerProvider>(lines);
        });
        await using var socket = await EventSocket.OpenAsync(host.Url);

        await PutAsync(host, """{"webhook_url":"https://hooks.example.org/canary-2f1d"}""");

        (await socket.NextAsync()).ShouldBe("""{"type":"settings_changed"}""");
        lines.All.ShouldContain(line => line.Contains("webhook_url", StringComparison.Ordinal));
        lines.All.ShouldAllBe(line => !line.Contains("canary-2f1d", StringComparison.Ordinal));
    }

    private static Task<ControlPlane> StartAsync(params string[] configuration) =>
        ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode, configuration: configuration);

    private static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    private static async Task<string> PutAsync(ControlPlane host, string body)
    {
        using var answer = await host.Client.PutAsync(Route, Json(body), Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK, await answer.Content.ReadAsStringAsync(Ct));
        return "/api/settings";
    }

    private static async Task<string> RefusedAsync(ControlPlane host, string body, string field)
    {
        using var answer = await host.Client.PutAsync(Route, Json(body), Ct);
        var problem = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest, problem.ToString());
        problem.GetProperty("code").GetString().ShouldBe("validation");
        problem.GetProperty("errors").EnumerateObject().Select(error => error.Name).ShouldBe([field], problem.ToString());
        return problem.GetProperty("detail").GetString()!;
    }

    private static async Task<HttpResponseMessage> SendAsync(ControlPlane host, string body, string name)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = Json(body), Headers = { { "X-Request-Id", name } } };
        return await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
    }

    private static Task<JsonElement> NodeStatusAsync(ControlPlane host, string status) =>
        Deadline.UntilAsync(() => host.Client.JsonAsync("/api/nodes"), nodes => nodes[0].GetProperty("status").GetString() == status, what: $"the node to be {status}");
}
