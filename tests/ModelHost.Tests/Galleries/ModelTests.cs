using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Galleries;
using ModelHost.TestKit;
using ModelHost.Tests.Cluster;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.Galleries;

/// <summary>Models are installed from galleries on real nodes, and what fails leaves what was there.</summary>
public sealed class ModelTests : IAsyncLifetime
{
    private FileServer _server = null!;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() => _server = await FileServer.StartAsync();

    public ValueTask DisposeAsync() => _server.DisposeAsync();

    [Fact]
    public async Task A_model_whose_engine_the_node_cannot_start_now_is_installed_and_says_so()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");

        var vllm = await ApplyAsync(host, """{"id":"qwen3-8b"}""");
        var simulator = await ApplyAsync(host, """{"name":"phi","config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"}}}""");

        vllm.Message.ShouldMatch("^completed; [^;]+ cannot start it now: it has no docker or podman$");
        simulator.Message.ShouldBe("completed");
    }

    [Fact]
    public async Task A_model_is_installed_with_its_files_listed_and_deleted()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node, "Listener:PathBase=/models-of/ours");
        var weights = _server.Put("/w.safetensors", FileServer.Bytes(300_000));
        _server.Put("/config.json", "{}"u8.ToArray());
        Gallery($$"""
            - &phi
              name: phi
              license: mit
              description: small
              icon: https://example.org/i.png
              urls: [https://example.org/phi]
              tags: [llm]
              size: 300 KB
              overrides: {backend: simulator, context_size: 2048}
              files:
                - {filename: w.safetensors, sha256: {{weights.Sha256}}, uri: "{{_server.Url("/w.safetensors")}}" }
                - {filename: config.json, uri: "{{_server.Url("/config.json")}}" }
            - {<<: *phi, name: other/phi, files: [], tags: []}
            """);
        using var prefixed = new HttpClient { BaseAddress = new Uri(host.Url, "/models-of/ours/") };
        await Deadline.UntilAsync(() => prefixed.JsonAsync("api/nodes"), nodes => nodes.GetArrayLength() == 1);

        var (status, applied) = await SendAsync(prefixed, "models/apply", """{"id":"own@PHI"}""");

        status.ShouldBe(200);
        var uuid = applied["uuid"]!.GetValue<string>();
        applied.ToJsonString().ShouldBe($$"""{"uuid":"{{uuid}}","status":"{{host.Url}}models-of/ours/models/jobs/{{uuid}}"}""");
        using (var client = new HttpClient())
            (await client.GetStringAsync(applied["status"]!.GetValue<string>() + "?wait=true", Ct)).ShouldContain("\"message\":\"completed\"");
        (await File.ReadAllBytesAsync(Path.Combine(node.Data, "models", "phi", "w.safetensors"), Ct)).ShouldBe(weights.Content);
        var gallery = $$"""{"url":"{{_server.Url("/index.yaml")}}","name":"own"}""";
        (await prefixed.GetStringAsync("models/available", Ct)).ShouldBe($$"""
            [{"name":"phi","description":"small","license":"mit","urls":["https://example.org/phi"],"icon":"https://example.org/i.png","tags":["llm"],"files":[{"filename":"w.safetensors","sha256":"{{weights.Sha256}}","uri":"{{_server.Url("/w.safetensors")}}"},{"filename":"config.json","sha256":"","uri":"{{_server.Url("/config.json")}}"}],"size":"300 KB","gallery":{{gallery}},"installed":true,"backend":"simulator"},{"name":"other/phi","description":"small","license":"mit","urls":["https://example.org/phi"],"icon":"https://example.org/i.png","size":"300 KB","gallery":{{gallery}},"backend":"simulator"}]
            """);
        var deployment = (await prefixed.JsonAsync("api/deployments")).EnumerateArray().Single();
        deployment.GetProperty("status").GetString().ShouldBe("stopped");
        deployment.GetProperty("model_name").GetString().ShouldBe(Path.Combine(node.Data, "models", "phi"));
        deployment.GetProperty("engine_args").GetRawText().ShouldBe("""{"max_model_len":2048,"served_model_name":"phi"}""");
        (await prefixed.GetStringAsync("models", Ct)).ShouldBe("""{"data":[{"id":"phi","object":"model"}],"object":"list"}""");

        var (_, deleted) = await SendAsync(prefixed, "models/delete/Phi?wait=true", null);

        deleted["job"]!["message"]!.GetValue<string>().ShouldBe("completed");
        deleted["job"]!["deletion"]!.GetValue<bool>().ShouldBeTrue();
        Directory.Exists(Path.Combine(node.Data, "models", "phi")).ShouldBeFalse();
        (await prefixed.JsonAsync("api/deployments")).GetArrayLength().ShouldBe(0);
        (await prefixed.GetStringAsync("models/available", Ct)).ShouldNotContain("installed");
    }

    [Fact]
    public async Task A_model_whose_engine_does_not_stop_is_waited_for_no_longer_than_that_is_set_and_stays()
    {
        await using var host = await ControlPlane.StartAsync(null, "http://127.0.0.1:0", null, "Galleries:StopPatience=00:00:01");
        await host.Client.NodeAsync("process");
        var node = await QuietNode.AddAsync(host);
        var applied = await ApplyAsync(host, $$$"""{"name":"tiny","config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"}},"nodes":[{{{node.Id}}}]}""");
        var id = (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().Single().GetProperty("id").GetInt32();
        await node.SetAsync(id, DeploymentStatus.Running);

        var failed = await DeleteAsync();
        var kept = await host.Client.JsonAsync($"/api/deployments/{id}");
        var models = await host.Client.GetStringAsync("/models", Ct);
        await node.SetAsync(id, DeploymentStatus.Stopped);
        var done = await DeleteAsync();

        applied.Message.ShouldStartWith("completed");
        failed.GetProperty("error").GetString().ShouldBe($"deployment {id} has not stopped within 0:00:01, and stays with its model and the files; it goes on stopping, so try again later");
        (kept.GetProperty("status").GetString(), kept.GetProperty("start_on_demand").GetBoolean()).ShouldBe(("stopping", true));
        models.ShouldContain("tiny");
        done.GetProperty("message").GetString().ShouldBe("completed");
        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);

        async Task<JsonElement> DeleteAsync()
        {
            using var answer = await host.Client.PostAsync("/models/delete/tiny?wait=true", null, Ct);
            return (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("job");
        }
    }

    [Fact]
    public async Task A_wrong_hash_fails_the_job_and_leaves_what_was_there()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node);
        await host.Client.NodeAsync("process");
        _server.Put("/w.bin", FileServer.Bytes(1000));
        (await ApplyAsync(host, Inline("/w.bin", ""))).Message.ShouldBe("completed");
        var before = await host.Client.GetStringAsync("/api/deployments", Ct);

        var failed = await ApplyAsync(host, Inline("/w.bin", new string('a', 64)));

        failed.Error.ShouldNotBeNull().ShouldContain("SHA-256", Case.Insensitive);
        (failed.Processed, failed.Progress, failed.Nodes!.Single().Status).ShouldBe((true, 0, "error"));
        (await File.ReadAllBytesAsync(Path.Combine(node.Data, "models", "phi", "w.bin"), Ct)).Length.ShouldBe(1000);
        (await host.Client.GetStringAsync("/api/deployments", Ct)).ShouldBe(before);
    }

    [Fact]
    public async Task A_cancelled_download_stays_cancelled_and_leaves_nothing()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node);
        await host.Client.NodeAsync("process");
        _server.Put("/w.gguf", FileServer.Bytes(400_000)).HoldAfter = 100_000;
        var (_, applied) = await SendAsync(host.Client, "/models/apply", Inline("/w.gguf", ""));
        var uuid = applied["uuid"]!.GetValue<string>();
        var shown = await Deadline.UntilAsync(() => host.Client.JsonAsync($"/models/jobs/{uuid}"), job => job.TryGetProperty("current_bytes", out var bytes) && bytes.GetInt64() > 0 && job.GetProperty("nodes")[0].GetProperty("status").GetString() == "downloading");
        shown.GetProperty("total_bytes").GetInt64().ShouldBe(400_000);

        using var cancelled = await host.Client.PostAsync($"/models/jobs/{uuid}/cancel", null, Ct);
        cancelled.StatusCode.ShouldBe(HttpStatusCode.OK);

        var after = await ApplyAsync(host, """{"name":"phi","config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"}}}""");
        after.Message.ShouldBe("completed"); // behind the end of the other
        var job = await host.Client.JsonAsync($"/models/jobs/{uuid}");
        (job.GetProperty("cancelled").GetBoolean(), job.GetProperty("message").GetString()).ShouldBe((true, "cancelled"));
        Directory.Exists(Path.Combine(node.Data, "models", "phi")).ShouldBeFalse();
    }

    [Fact]
    public async Task Models_that_are_applied_at_the_same_time_have_ports_of_their_own()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node, "Galleries:ParallelJobs=8");
        await host.Client.NodeAsync("process");

        var done = await Task.WhenAll(Enumerable.Range(0, 24).Select(i => ApplyAsync(host, $$$"""{"name":"m{{{i}}}","config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"} } }""")));

        done.ShouldAllBe(job => job.Message == "completed");
        (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().Select(deployment => deployment.GetProperty("port").GetInt32()).ShouldBeUnique();
    }

    [Fact]
    public async Task A_model_that_is_applied_again_keeps_its_port_unless_another_is_asked_for()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node);
        await host.Client.NodeAsync("process");
        async Task<int> PortAsync(string more)
        {
            (await ApplyAsync(host, $$$"""{"name":"phi","config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"} },"variants":[{"model":"x"}] {{{more}}} }""")).Message.ShouldBe("completed");
            return (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().Single().GetProperty("port").GetInt32();
        }

        var first = await PortAsync("");

        (await PortAsync(""","overrides":{"context_size":1024}""")).ShouldBe(first);
        (await PortAsync(""","overrides":{"context_size":1024},"deploy":{"port":8765}""")).ShouldBe(8765);
        (await PortAsync(""","overrides":{"context_size":512}""")).ShouldBe(8765);
    }

    [Fact]
    public async Task Names_that_differ_in_letter_case_alone_are_one_and_leave_no_files_behind()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node);
        await host.Client.NodeAsync("process");
        _server.Put("/w.bin", FileServer.Bytes(1000));
        (await ApplyAsync(host, Inline("/w.bin", "").Replace("phi", "Phi", StringComparison.Ordinal))).Message.ShouldBe("completed");

        (await ApplyAsync(host, Inline("/w.bin", ""))).Error.ShouldNotBeNull().ShouldContain("a model Phi is installed");

        (await SendAsync(host.Client, "/models/delete/PHI?wait=true", null)).Body["job"]!["message"]!.GetValue<string>().ShouldBe("completed");
        Directory.GetDirectories(Path.Combine(node.Data, "models")).Select(Path.GetFileName).Where(name => name is not ("huggingface" or ".staging")).ShouldBeEmpty();
        (await SendAsync(host.Client, "/models/delete/a%0Aline?wait=true", null)).Status.ShouldBe(400); // which would be one of the log
    }

    [Theory]
    [InlineData("""{"id":"nothing"}""", "no model found with name nothing")]
    [InlineData("""{"id":"none@phi"}""", "there is no gallery none")]
    [InlineData("""{"id":"own@empty"}""", "nothing to install")]
    [InlineData("""{"id":"escape"}""", "files.filename")]
    [InlineData("""{"id":"escape2"}""", "parameters.model")]
    [InlineData("""{"id":"backend"}""", "could not be installed: no backend found with name")]
    [InlineData("""{"id":"pickle"}""", "pickle")]
    [InlineData("""{"id":"nested"}""", "'a' is to be a file, and the folder of 'a/b' too")]
    [InlineData("""{"id":"blank space"}""", "name: holds")]
    [InlineData("""{"id":"far"}""", "it is of no known scheme")]
    [InlineData("""{"name":"x","config_file":{"backend":"simulator"}}""", "names no model")]
    [InlineData("""{"name":"x","config_file":{"backend":"simulator","parameters":{"model":"a/b"},"engine_args":{"host":"0.0.0.0"}}}""", "host")]
    public async Task What_cannot_be_installed_is_a_failed_job_with_its_reason(string request, string reason)
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node);
        await host.Client.NodeAsync("process");
        Gallery($$"""
            - {name: empty, description: x}
            - {name: escape, overrides: {backend: simulator}, files: [{filename: ../x, uri: "{{_server.Url("/x")}}"}]}
            - {name: escape2, overrides: {backend: simulator, parameters: {model: ../../x} } }
            - {name: backend, overrides: {backend: unknown, parameters: {model: a/b} } }
            - {name: pickle, overrides: {backend: simulator}, files: [{filename: x.pt, uri: "{{_server.Url("/x.pt")}}"}]}
            - {name: far, url: "gopher://example.org/x"}
            - {name: nested, overrides: {backend: simulator}, files: [{filename: a, uri: "{{_server.Url("/x")}}"}, {filename: a/b, uri: "{{_server.Url("/x")}}"}]}
            - {name: blank space, overrides: {backend: simulator, parameters: {model: a/b} } }
            """);
        _server.Put("/x", FileServer.Bytes(10));

        var failed = await ApplyAsync(host, request);

        failed.Processed.ShouldBeTrue();
        failed.Message.ShouldStartWith("error: ");
        if (!request.Contains("far", StringComparison.Ordinal))
            failed.Error.ShouldNotBeNull().ShouldContain(reason);
        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
        Directory.GetDirectories(Path.Combine(node.Data, "models")).Select(Path.GetFileName).Where(name => name is not ("huggingface" or ".staging")).ShouldBeEmpty();
    }

    [Theory]
    [InlineData("""{}""", "id")]
    [InlineData("""{"url":"file:///etc/passwd","name":"x"}""", "url")]
    [InlineData("""{"config_url":"gopher://example.org/x"}""", "config_url")]
    [InlineData("""{"id":"a","files":[{"uri":"ftp://example.org/x"}]}""", "files.uri")]
    [InlineData("""{"id":"a","files":[{"filename":"../x","uri":"https://example.org/x"}]}""", "files.filename")]
    [InlineData("""{"url":"https://example.org/x","files":[{"filename":"x","uri":"https://example.org/x","sha256":"12"}]}""", "files.sha256")]
    [InlineData("""{"name":"x","config_file":{"parameters":{"model":"../../x"}}}""", "parameters.model")]
    [InlineData("""{"name":"x","config_file":{"backend":"a b"}}""", "backend")]
    [InlineData("""{"config_file":{"backend":"simulator"}}""", "name")]
    [InlineData("""{"id":"a","name":"../x"}""", "name")]
    [InlineData("""{"id":"a","name":"a/b"}""", "name")]
    [InlineData("""{"id":"a","overides":{"a":1}}""", "overides")]
    [InlineData("""{"id":"a","overrides":[]}""", "overrides")]
    [InlineData("""{"id":"a","nodes":[99]}""", "nodes")]
    [InlineData("""{"id":"a","nodes":["nobody"]}""", "nodes")]
    [InlineData("""{"id":"a","deploy":{"port":80}}""", "deploy.port")]
    [InlineData("""{"id":"a","deploy":{"env_vars":[{"key":"A","value":"********"}]}}""", "deploy.env_vars")]
    [InlineData("""{"id":"a","deploy":{"gpus":1}}""", "deploy.gpus")]
    [InlineData("""{"id":"a\nb"}""", "id")]
    [InlineData("""{"files":[{"filename":"x"}]}""", "files")]
    public async Task A_request_that_makes_no_sense_is_refused_at_once(string request, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");

        var (status, answer) = await SendAsync(host.Client, "/models/apply", request);

        status.ShouldBe(400);
        answer["error"]!["message"]!.GetValue<string>().ShouldStartWith($"{field}: ");
        (await host.Client.GetStringAsync("/models/jobs", Ct)).ShouldBe("{}");
    }

    [Fact]
    public async Task A_model_of_an_address_is_started_at_once_where_that_is_asked_for_and_keeps_its_secrets()
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node);
        await host.Client.NodeAsync("process");
        _server.Put("/phi.yaml", Encoding.UTF8.GetBytes("name: phi\nconfig_file: |\n  backend: simulator\n  parameters: {model: demo/tiny-chat}\n"));

        var done = await ApplyAsync(host, $$$"""{"url":"{{{_server.Url("/phi.yaml")}}}","overrides":{"max_model_len":1024},"deploy":{"start":true,"port":8123,"owner":"us","env_vars":[{"key":"VLLM_LOGGING_LEVEL","value":"DEBUG"}]}}""");

        done.Message.ShouldBe("completed");
        var deployment = (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().Single();
        (deployment.GetProperty("port").GetInt32(), deployment.GetProperty("owner").GetString(), deployment.GetProperty("env_vars")[0].GetProperty("value").GetString()).ShouldBe((8123, "us", "********"));
        await host.Client.StatusAsync(deployment.GetProperty("id").GetInt32(), "running");
        using var chat = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("phi", maxTokens: 4), Ct);
        chat.StatusCode.ShouldBe(HttpStatusCode.OK);
        foreach (var file in Directory.GetFiles(node.Data, "modelhost.db*"))
            Encoding.Latin1.GetString(await ReadSharedAsync(file)).ShouldNotContain("DEBUG");

        // applied again while it runs, it goes on; deleted, it is stopped first
        (await ApplyAsync(host, $$"""{"url":"{{_server.Url("/phi.yaml")}}"}""")).Message.ShouldBe("completed");
        await host.Client.StatusAsync(deployment.GetProperty("id").GetInt32(), "running");
        (await SendAsync(host.Client, "/models/delete/phi?wait=true", null)).Body["job"]!["message"]!.GetValue<string>().ShouldBe("completed");
        (await host.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
        (await SendAsync(host.Client, "/models/delete/phi?wait=true", null)).Body["job"]!["error"]!.GetValue<string>().ShouldBe("model phi is not installed");
    }

    [Theory]
    [InlineData("""{"hasUnsafeFile":true,"dangerousPickles":["x.bin"],"clamAVInfectedFiles":[]}""", "x.bin")]
    [InlineData("""{"hasUnsafeFile":true}""", "unsafe")]
    [InlineData("""{"hasUnsafeFile":false,"dangerousPickles":[],"clamAVInfectedFiles":[]}""", null)]
    [InlineData("[]", null)]
    public async Task What_hugging_face_calls_unsafe_is_not_installed(string scan, string? reason)
    {
        using var node = new TestNode();
        await using var host = await StartAsync(node, $"Galleries:EnforceScan={(scan == "[]" ? "false" : "true")}");
        await host.Client.NodeAsync("process");
        _server.Put("/api/models/demo/tiny/scan", Encoding.UTF8.GetBytes(scan));

        var status = await ApplyAsync(host, """{"name":"phi","config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"}}}""");

        if (reason is null)
            status.Message.ShouldBe("completed");
        else
            status.Error.ShouldNotBeNull().ShouldContain(reason);
    }

    [Fact]
    public async Task A_scan_that_cannot_be_had_is_enforced_only_where_that_is_set()
    {
        const string request = """{"name":"phi","config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"}}}""";
        using var node = new TestNode();
        await using (var host = await StartAsync(node))
        {
            await host.Client.NodeAsync("process");
            (await ApplyAsync(host, request)).Message.ShouldBe("completed");
        }
        await using var strict = await StartAsync(node, "Galleries:EnforceScan=true");
        await strict.Client.NodeAsync("process");
        (await ApplyAsync(strict, request)).Error.ShouldNotBeNull().ShouldContain("EnforceScan");
    }

    [Fact]
    public async Task Models_of_the_configuration_are_installed_at_start_once()
    {
        using var node = new TestNode();
        var file = Path.Combine(node.Data, "models.yaml");
        await File.WriteAllTextAsync(file, "- name: a\n  config_file: &c {backend: simulator, parameters: {model: demo/tiny}}\n- {name: b, config_file: *c}\n- {name: ../c, config_file: *c}\n", Ct);
        string[] settings = [$"Galleries:Import={file}", """Galleries:ImportJson=[{"name":"d","config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"}}}]"""];
        for (var start = 0; start < 2; start++)
        {
            await using var host = await StartAsync(node, settings);
            await host.Services.GetServices<IHostedService>().OfType<ModelImport>().Single().ExecuteTask!.WaitAsync(TimeSpan.FromSeconds(60), Ct);
            await Deadline.UntilAsync(() => host.Client.JsonAsync("/models"), models => models.GetProperty("data").GetArrayLength() == 3);
            await Deadline.UntilAsync(() => host.Services.GetRequiredService<JobBook>().All.All(job => job.Status.Processed));
            host.Services.GetRequiredService<JobBook>().All.Count.ShouldBe(3);
        }
    }

    [Fact]
    public async Task An_item_of_the_configuration_that_is_none_hides_no_other()
    {
        using var node = new TestNode();
        var file = Path.Combine(node.Data, "models.yaml");
        await File.WriteAllTextAsync(file, "- 5\n- {name: [a]}\n- {bogus: 1}\n- {name: a, config_file: {backend: simulator, parameters: {model: demo/tiny} } }\n", Ct);
        await using var host = await StartAsync(node, $"Galleries:Import={file}");

        await Deadline.UntilAsync(() => host.Client.JsonAsync("/models"), models => models.GetProperty("data").GetArrayLength() == 1);
    }

    [Fact]
    public async Task A_model_of_the_configuration_waits_for_its_node()
    {
        await using var cluster = await TestCluster.StartAsync(
            configuration: """Galleries:ImportJson=[{"name":"a","nodes":["gpu-1"],"config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"}}}]""");
        await cluster.Host.Client.NodeAsync("process");
        await using var agent = await cluster.AgentAsync();
        var remote = await cluster.StatusAsync("gpu-1", "online");

        var deployments = await Deadline.UntilAsync(() => cluster.Host.Client.JsonAsync("/api/deployments"), all => all.GetArrayLength() == 1);

        deployments[0].GetProperty("node_id").GetInt32().ShouldBe(remote);
    }

    [Fact]
    public async Task A_database_that_fails_meanwhile_ends_neither_the_waiting_nor_the_control_plane()
    {
        await using var cluster = await TestCluster.StartAsync(
            configuration: """Galleries:ImportJson=[{"name":"a","nodes":["gpu-1"],"config_file":{"backend":"simulator","parameters":{"model":"demo/tiny"}}}]""");
        var (database, ending) = (cluster.Host.Services.GetRequiredService<Database>(), cluster.Host.Services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping);
        async Task DoAsync(string statement)
        {
            await using var db = await database.OpenAsync(Ct);
            await db.Database.ExecuteSqlRawAsync(statement, Ct);
        }
        using var log = new LogLines();
        cluster.Host.Services.GetRequiredService<ILoggerFactory>().AddProvider(log);

        await DoAsync("ALTER TABLE InstalledModels RENAME TO Elsewhere");
        await Deadline.UntilAsync(() => log.All.Any(line => line.Contains("no such table", StringComparison.Ordinal)) || ending.IsCancellationRequested, 60, "it to be asked for again");
        await DoAsync("ALTER TABLE Elsewhere RENAME TO InstalledModels");
        ending.IsCancellationRequested.ShouldBeFalse();
        await using var agent = await cluster.AgentAsync();

        await Deadline.UntilAsync(() => cluster.Host.Client.JsonAsync("/api/deployments"), all => all.GetArrayLength() == 1);
    }

    [Fact]
    public async Task Models_of_the_built_in_gallery_are_well_formed_and_installable()
    {
        using var node = new TestNode();
        await using var host = await ControlPlane.StartAsync(node, configuration: [$"Downloads:HuggingFaceUrl={_server.Address.GetLeftPart(UriPartial.Authority)}"]);
        await host.Client.NodeAsync("process");
        var names = (await host.Client.JsonAsync("/models/available")).EnumerateArray().Select(model => model.GetProperty("name").GetString()!).ToArray();
        names.Length.ShouldBe(10);

        foreach (var name in names)
            (await ApplyAsync(host, $$"""{"id":"modelhost@{{name}}"}""")).Message.ShouldMatch("^completed; [^;]+ cannot start it now: it has no docker or podman$", name);

        var deployments = (await host.Client.JsonAsync("/api/deployments")).EnumerateArray().ToArray();
        deployments.Select(deployment => deployment.GetProperty("port").GetInt32()).ShouldBeUnique();
        deployments.Select(deployment => deployment.GetProperty("engine_args").GetProperty("served_model_name").GetString()!).ShouldBe(names, ignoreOrder: true);
        deployments.ShouldContain(deployment => deployment.GetProperty("model_name").GetString() == "openai/gpt-oss-20b");
        (await host.Client.JsonAsync("/models/available")).EnumerateArray().ShouldAllBe(model => model.GetProperty("installed").GetBoolean());
    }

    [Fact]
    public async Task Backends_of_the_built_in_gallery_have_recipes_that_can_be_read()
    {
        await using var host = await ControlPlane.StartAsync();
        var book = host.Services.GetRequiredService<GalleryBook>();

        var content = (await host.Services.GetRequiredService<GalleryReader>().ReadAsync(await book.ListAsync(GalleryKind.Backends, Ct), Ct)).Single();

        content.Error.ShouldBeNull();
        var builds = content.Entries.Where(entry => !entry.IsMeta).ToDictionary(entry => entry.Name);
        builds.Keys.ShouldBe(["vllm-cuda", "vllm-rocm", "vllm-cpu", "sglang", "llama-cpp-cuda", "llama-cpp-rocm", "llama-cpp-cpu", "embeddings-cuda", "embeddings-cpu"]);
        foreach (var (name, entry) in builds)
        {
            var recipe = BackendCatalogue.Parse(entry.Recipe!.ToJsonString());
            recipe.Name.ShouldBe(name);
            recipe.Image.ShouldNotBeEmpty();
            entry.Uri.ShouldStartWith("oci://");
            entry.Uri.ShouldContain(recipe.Image);
        }
        builds["embeddings-cuda"].Uri.ShouldEndWith(":cuda-latest"); // the other images are for one generation of GPUs each
        content.Entries.Where(entry => entry.IsMeta).SelectMany(entry => entry.Capabilities.Values).ShouldAllBe(build => builds.ContainsKey(build));
    }

    private static string Json(string text) => JsonSerializer.Serialize(text);

    private string Inline(string path, string sha256) =>
        $$"""{"name":"phi","config_file":{"backend":"simulator"},"files":[{"uri":{{Json(_server.Url(path))}},"sha256":"{{sha256}}"}]}""";

    private void Gallery(string index) => _server.Put("/index.yaml", Encoding.UTF8.GetBytes(index));

    private Task<ControlPlane> StartAsync(TestNode node, params string[] configuration) => ControlPlane.StartAsync(node, configuration:
        ["Galleries:Models:0:Name=own", $"Galleries:Models:0:Url={_server.Url("/index.yaml")}", $"Downloads:HuggingFaceUrl={_server.Address.GetLeftPart(UriPartial.Authority)}", .. configuration]);

    private static async Task<JobStatus> ApplyAsync(ControlPlane host, string request)
    {
        var (status, body) = await SendAsync(host.Client, "/models/apply?wait=true", request);
        status.ShouldBe(200, body.ToJsonString());
        return body["job"].Deserialize<JobStatus>(GalleryJson.Options)!;
    }

    private static async Task<(int Status, JsonNode Body)> SendAsync(HttpClient client, string path, string? body)
    {
        using var answer = await client.PostAsync(new Uri(path, UriKind.Relative), body is null ? null : new StringContent(body, Encoding.UTF8, "application/json"), Ct);
        return ((int)answer.StatusCode, JsonNode.Parse(await answer.Content.ReadAsStringAsync(Ct))!);
    }

    private static async Task<byte[]> ReadSharedAsync(string path)
    {
        await using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        using var copy = new MemoryStream();
        await file.CopyToAsync(copy, Ct);
        return copy.ToArray();
    }
}
