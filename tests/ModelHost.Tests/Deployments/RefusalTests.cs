using System.Net;
using System.Text;
using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Requests that are refused: status, code, and the fault under its JSON name, never in C# words.</summary>
public sealed class RefusalTests(RefusalTests.Host shared) : IClassFixture<RefusalTests.Host>
{
    private static readonly Uri Start = new("/api/deployments/start", UriKind.Relative);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public static TheoryData<string, string, string> Faults => new()
    {
        { "port", "80", "port" },
        { "port", "70000", "port" },
        { "port", "-1", "port" },
        { "port", "8101.5", "port" },
        { "port", "\"8101\"", "port" },
        { "port", "99999999999", "port" },
        { "port", "null", "port" },
        { "node_id", "\"1\"", "node_id" },
        { "node_id", "null", "node_id" },
        { "gpu_memory_fraction", "0", "gpu_memory_fraction" },
        { "gpu_memory_fraction", "1.5", "gpu_memory_fraction" },
        { "gpu_memory_fraction", "-1", "gpu_memory_fraction" },
        { "gpu_memory_fraction", "\"0.5\"", "gpu_memory_fraction" },
        { "gpu_memory_fraction", "\"NaN\"", "gpu_memory_fraction" },
        { "gpu_memory_fraction", "null", "gpu_memory_fraction" },
        { "model_name", "\"\"", "model_name" },
        { "model_name", "null", "model_name" },
        { "model_name", "7", "model_name" },
        { "model_name", "\"/etc/passwd\"", "model_name" },
        { "model_name", "\"../model\"", "model_name" },
        { "model_name", "\"org/../model\"", "model_name" },
        { "model_name", "\"a/b/c\"", "model_name" },
        { "model_name", "\"~/model\"", "model_name" },
        { "model_name", "\"--model\"", "model_name" },
        { "model_name", "\"org/mo del\"", "model_name" },
        { "owner", "\"\"", "owner" },
        { "owner", "\"  \"", "owner" },
        { "owner", "null", "owner" },
        { "owner", "\"a\\u0000b\"", "owner" },
        { "gpu_ids", "\"0\"", "gpu_ids" },
        { "gpu_ids", "[0.5]", "gpu_ids[0]" },
        { "gpu_ids", "[null]", "gpu_ids[0]" },
        { "gpu_ids", "[-1]", "gpu_ids" },
        { "gpu_ids", "[7]", "gpu_ids" },
        { "tensor_parallel_size", "0", "tensor_parallel_size" },
        { "tensor_parallel_size", "2", "tensor_parallel_size" },
        { "duration_seconds", "0", "duration_seconds" },
        { "duration_seconds", "3000000000", "duration_seconds" },
        { "max_failed_restarts", "21", "max_failed_restarts" },
        { "pinned", "\"yes\"", "pinned" },
        { "pinned", "null", "pinned" },
        { "skip_resource_check", "1", "skip_resource_check" },
        { "engine_args", "{\"served_model_name\": \"\\ud800\"}", "engine_args" },
        { "engine_args", "{\"max_model_len\": \"\\ud800\"}", "engine_args" },
        { "engine_args", "{\"max_model_len\": [\"a\\udc00b\"]}", "engine_args" },
        { "engine_args", "{\"hf_overrides\": {\"a\": [{\"b\": \"\\ud800\"}]}}", "engine_args" },
        { "engine_args", "{\"hf_overrides\": {\"\\ud800\": 1}}", "engine_args.hf_overrides" },
        { "engine_args", "{\"disable_sleep_mode\": \"\\ud800\"}", "engine_args" },
        { "backend", "\"nope\"", "backend" },
        { "vllm_version", "\"a b\"", "vllm_version" },
        { "vllm_version", "\"../x\"", "vllm_version" },
        { "extra_args", "\"--x\"", "extra_args" },
        { "extra_args", "[null]", "extra_args" },
        { "extra_args", "[7]", "extra_args[0]" },
        { "extra_args", "[\"--api-key=x\"]", "extra_args" },
        { "extra_args", "[\"another-name\"]", "extra_args" },
        { "engine_args", "[]", "engine_args" },
        { "engine_args", "{\"port\":1}", "engine_args" },
        { "engine_args", "{\"served_model_name\":7}", "engine_args" },
        { "engine_args", "{\"served_model_name\":\"a b\"}", "engine_args" },
        { "engine_args", "{\"served_model_name\":\"\"}", "engine_args" },
        { "env_vars", "{\"A\":\"b\"}", "env_vars" },
        { "env_vars", "[{\"key\":\"VLLM_API_KEY\",\"value\":\"x\"}]", "env_vars" },
        { "env_vars", "[{\"key\":\"PATH\",\"value\":\"x\"}]", "env_vars" },
        { "env_vars", "[{\"key\":\"HF_TOKEN\"}]", "env_vars[0].value" },
        { "env_vars", "[{\"value\":\"x\"}]", "env_vars[0].key" },
        { "env_vars", "[null]", "env_vars" },
        { "lora_modules", "[{\"name\":\"a\"}]", "lora_modules" },
        { "lora_modules", "[{\"name\":\"a\",\"path\":\"/x\"}]", "lora_modules" },
        { "lora_modules", "[{\"name\":\"a=b\",\"path\":\"o/x\"}]", "lora_modules" },
        { "lora_modules", "[{\"name\":\"a\",\"path\":\"o/x\"},{\"name\":\"a\",\"path\":\"o/y\"}]", "lora_modules" },
        { "lora_modules", "[{\"name\":\"demo/tiny-chat\",\"path\":\"o/x\"}]", "lora_modules" },
        { "lora_modules", "[null]", "lora_modules" },
        { "lora_modules", "[{\"name\":\"a\",\"path\":\"file:///x\"}]", "lora_modules" },
        { "model_name", "\"file:///etc/passwd\"", "model_name" },
        { "model_name", "\"/srv/models/../secret\"", "model_name" },
        { "model_name", "\"/srv/models/qwen\"", "model_name" },
        { "extra_args", "[\"--enforce-eager\",\"org/another-model\"]", "extra_args" },
        { "engine_args", "{\"enforce_eager\":\"org/another-model\"}", "engine_args" },
        { "engine_args", "{\"max_loras\":0}", "engine_args" },
        { "extra_packages", "[\"peft\"]", "extra_packages" },
        { "extra_packages", "[7]", "extra_packages[0]" },
        { "extra_packages", "\"peft\"", "extra_packages" },
    };

    [Theory]
    [MemberData(nameof(Faults))]
    public async Task A_field_at_fault_is_named(string field, string value, string named)
    {
        var request = Api.StartRequest(shared.NodeId);
        request[field] = "VALUE";

        using var answer = await shared.Client.PostAsync(Start, Json(request.ToJsonString().Replace("\"VALUE\"", value, StringComparison.Ordinal)), Ct);

        var problem = await ProblemAsync(answer, HttpStatusCode.BadRequest);
        problem.GetProperty("code").GetString().ShouldBeOneOf("validation", "deployment.option_denied");
        problem.GetProperty("errors").EnumerateObject().Select(error => error.Name).ShouldBe([named], problem.ToString());
        problem.GetProperty("detail").GetString()!.ShouldStartWith(named + ": ");
    }

    [Theory]
    [InlineData("node_id")]
    [InlineData("model_name")]
    [InlineData("port")]
    [InlineData("gpu_memory_fraction")]
    [InlineData("owner")]
    public async Task A_field_that_is_missing_is_named(string field)
    {
        var request = Api.StartRequest(shared.NodeId);
        request.Remove(field);

        using var answer = await shared.Client.PostAsync(Start, Json(request.ToJsonString()), Ct);

        var problem = await ProblemAsync(answer, HttpStatusCode.BadRequest, "validation");
        problem.GetProperty("errors").GetProperty(field)[0].GetString().ShouldBe("is required");
    }

    [Fact]
    public async Task All_fields_at_fault_are_named_at_once()
    {
        using var answer = await shared.Client.PostAsync(Start, Json("{\"port\":80}"), Ct);

        (await ProblemAsync(answer, HttpStatusCode.BadRequest, "validation")).GetProperty("errors").EnumerateObject().Select(error => error.Name)
            .ShouldBe(["node_id", "model_name", "port", "gpu_memory_fraction", "owner"], ignoreOrder: true);
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("{\"port\":}")]
    [InlineData("nonsense")]
    [InlineData("[]")]
    [InlineData("7")]
    [InlineData("null")]
    [InlineData("\"text\"")]
    public async Task A_body_that_is_no_json_object_is_refused(string body)
    {
        using var answer = await shared.Client.PostAsync(Start, Json(body), Ct);

        (await ProblemAsync(answer, HttpStatusCode.BadRequest, "validation")).GetProperty("errors").EnumerateObject().ShouldHaveSingleItem().Name.ShouldBe("");
    }

    /// <summary>Whoever looked at the request before, such as a proxy with rules of its own, may have taken the other one.</summary>
    [Theory]
    [InlineData("POST", "/api/deployments/start", """{"port":8101,"port":8102}""", "port")]
    [InlineData("POST", "/api/deployments/start", """{"owner":"a","\u006fwner":"b"}""", "owner")]
    [InlineData("POST", "/api/deployments/start", """{"engine_args":{"seed":1,"seed":2}}""", "engine_args.seed")]
    [InlineData("POST", "/api/deployments/start", """{"engine_args":{"hf_overrides":{"a":1,"a":2}}}""", "engine_args.hf_overrides")]
    [InlineData("POST", "/api/deployments/start", """{"lora_modules":[{"name":"a","name":"b","path":"o/m"}]}""", "lora_modules[0].name")]
    [InlineData("POST", "/api/api-keys", """{"label":"a","models":["m"],"models":null}""", "models")]
    [InlineData("PUT", "/api/settings", """{"gateway_enabled":true,"gateway_enabled":true}""", "gateway_enabled")]
    [InlineData("POST", "/api/configs", """{"name":"a","payload":{"x":1,"x":2}}""", "payload")]
    [InlineData("POST", "/api/admin/purge", """{"targets":["metrics"],"targets":["nodes"]}""", "targets")]
    public async Task A_field_that_comes_twice_is_refused(string method, string path, string body, string field)
    {
        using var request = new HttpRequestMessage(new HttpMethod(method), path) { Content = Json(body) };
        using var answer = await shared.Client.SendAsync(request, Ct);

        var error = (await ProblemAsync(answer, HttpStatusCode.BadRequest, "validation")).GetProperty("errors").EnumerateObject().ShouldHaveSingleItem();
        (error.Name, error.Value[0].GetString()).ShouldBe((field, "comes more than once"));
    }

    [Theory]
    [InlineData("POST", "/api/deployments/stop/987", HttpStatusCode.NotFound, "deployment.not_found")]
    [InlineData("DELETE", "/api/deployments/987", HttpStatusCode.NotFound, "deployment.not_found")]
    [InlineData("GET", "/api/deployments/987", HttpStatusCode.NotFound, "deployment.not_found")]
    [InlineData("GET", "/api/deployments/987/logs", HttpStatusCode.NotFound, "deployment.not_found")]
    [InlineData("GET", "/api/deployments/987/logs?tail=abc", HttpStatusCode.BadRequest, "validation")]
    [InlineData("GET", "/api/deployments/987/logs?tail=99999999999", HttpStatusCode.BadRequest, "validation")]
    [InlineData("GET", "/api/deployments/x", HttpStatusCode.NotFound, "route.not_found")]
    [InlineData("GET", "/api/nothing", HttpStatusCode.NotFound, "route.not_found")]
    [InlineData("GET", "/nothing", HttpStatusCode.NotFound, "route.not_found")]
    [InlineData("PUT", "/api/deployments/start", HttpStatusCode.MethodNotAllowed, "route.method_not_allowed")]
    [InlineData("DELETE", "/api/nodes", HttpStatusCode.MethodNotAllowed, "route.method_not_allowed")]
    public async Task What_is_not_there_is_a_problem_with_a_code(string method, string path, HttpStatusCode status, string code)
    {
        using var request = new HttpRequestMessage(new HttpMethod(method), path);

        using var answer = await shared.Client.SendAsync(request, Ct);

        var problem = await ProblemAsync(answer, status, code);
        if (code == "validation")
            problem.GetProperty("errors").TryGetProperty("tail", out _).ShouldBeTrue();
    }

    [Fact]
    public async Task An_unknown_node_is_not_found()
    {
        using var answer = await shared.Client.PostAsync(Start, Json(Api.StartRequest(987).ToJsonString()), Ct);

        (await ProblemAsync(answer, HttpStatusCode.NotFound, "node.not_found")).GetProperty("detail").GetString().ShouldBe("There is no node 987.");
    }

    [Theory]
    [InlineData("gpu_idz", "[0]", false)]
    [InlineData("skip_resource_chek", "true", false)]
    [InlineData("extra_package", "[\"peft\"]", false)]
    [InlineData("extra_package", "[]", true)]
    [InlineData("container_runtime", "null", true)]
    [InlineData("pip_packages", "\"\"", true)]
    public async Task A_field_that_there_is_not_is_refused_unless_it_is_empty(string field, string value, bool passes)
    {
        var request = Api.StartRequest(shared.NodeId, backend: "vllm", change: r => r[field] = System.Text.Json.Nodes.JsonNode.Parse(value));

        using var answer = await shared.Client.PostAsync(Start, Json(request.ToJsonString()), Ct);

        var problem = await ProblemAsync(answer, passes ? HttpStatusCode.Conflict : HttpStatusCode.BadRequest, passes ? "node.no_runtime" : "validation");
        if (!passes)
            problem.GetProperty("errors").GetProperty(field)[0].GetString().ShouldBe("is no field of this request");
    }

    [Theory]
    [InlineData("extra_args", "[\"--swap-space=4\"]", "extra_args", "deployment.option_unsupported")]
    [InlineData("engine_args", "{\"swap_space\":4}", "engine_args.swap_space", "deployment.option_unsupported")]
    [InlineData("extra_packages", "[\"--index-url=http://x\"]", "extra_packages", "validation")]
    [InlineData("extra_packages", "[null]", "extra_packages", "validation")]
    public async Task What_the_engine_of_that_version_or_its_installer_would_not_take_is_named(string field, string value, string named, string code)
    {
        var request = Api.StartRequest(shared.NodeId, backend: "vllm", change: r =>
        {
            r["vllm_version"] = "0.28.0";
            r[field] = System.Text.Json.Nodes.JsonNode.Parse(value);
        });

        using var answer = await shared.Client.PostAsync(Start, Json(request.ToJsonString()), Ct);

        (await ProblemAsync(answer, HttpStatusCode.BadRequest, code)).GetProperty("errors").EnumerateObject().ShouldHaveSingleItem().Name.ShouldBe(named);
    }

    [Fact]
    public async Task A_backend_without_its_runtime_on_the_node_is_a_conflict()
    {
        using var answer = await shared.Client.PostAsync(Start, Json(Api.StartRequest(shared.NodeId, backend: "vllm").ToJsonString()), Ct);

        (await ProblemAsync(answer, HttpStatusCode.Conflict, "node.no_runtime")).GetProperty("detail").GetString()!.ShouldContain("needed docker or podman, available process. Is Docker or Podman running");
    }

    [Fact]
    public async Task A_body_of_another_type_or_size_is_refused()
    {
        var request = Api.StartRequest(shared.NodeId);
        using var text = new StringContent(request.ToJsonString(), Encoding.UTF8, "text/plain");
        request["owner"] = new string('x', 1024 * 1024);

        using var unknown = Json("{}");
        unknown.Headers.ContentType!.CharSet = "klingon";

        using var wrong = await shared.Client.PostAsync(Start, text, Ct);
        using var unread = await shared.Client.PostAsync(Start, unknown, Ct);
        // asks before it sends the body, as curl does: whoever is still sending when the connection ends may never see the answer
        using var asking = new HttpRequestMessage(HttpMethod.Post, Start) { Content = Json(request.ToJsonString()), Headers = { ExpectContinue = true } };
        using var large = await shared.Client.SendAsync(asking, Ct);

        await ProblemAsync(wrong, HttpStatusCode.UnsupportedMediaType, "body.not_json");
        await ProblemAsync(unread, HttpStatusCode.UnsupportedMediaType, "body.not_json");
        await ProblemAsync(large, HttpStatusCode.RequestEntityTooLarge, "body.too_large");
    }

    private static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    private static async Task<JsonElement> ProblemAsync(HttpResponseMessage answer, HttpStatusCode status, string? code = null)
    {
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.StatusCode.ShouldBe(status, text);
        answer.Content.Headers.ContentType!.MediaType.ShouldBe("application/problem+json");
        foreach (var word in (string[])["System.", "Int32", "ModelHost.", "DeploymentStart", "Exception", "Nullable", "BytePosition"])
            text.ShouldNotContain(word, Case.Sensitive);
        var problem = JsonDocument.Parse(text).RootElement;
        problem.GetProperty("status").GetInt32().ShouldBe((int)status);
        problem.GetProperty("detail").GetString().ShouldNotBeNullOrWhiteSpace();
        problem.GetProperty("code").GetString().ShouldBe(code ?? problem.GetProperty("code").GetString());
        return problem;
    }

    /// <summary>One control plane for all refusals: none of them changes it.</summary>
    public sealed class Host : IAsyncLifetime
    {
        private ControlPlane? _host;

        public HttpClient Client => _host!.Client;

        public int NodeId { get; private set; }

        public async ValueTask InitializeAsync()
        {
            _host = await ControlPlane.StartAsync();
            NodeId = await Client.NodeAsync("process");
        }

        public async ValueTask DisposeAsync()
        {
            (await Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(0);
            await _host!.DisposeAsync();
        }
    }
}
