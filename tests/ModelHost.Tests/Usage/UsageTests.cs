using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Metering;
using ModelHost.Agent.Proxy;
using ModelHost.Core.Routing;
using ModelHost.Features.Usage;
using ModelHost.Gateway;
using ModelHost.Rpc;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Gateway;
using ModelHost.Tests.Gateway.Grpc;
using ModelHost.Tests.Proxy;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Usage;

/// <summary>What the gateway counts, over real sockets, before engines that a test writes.</summary>
public sealed class UsageTests
{
    private const string Whole = """{"choices":[],"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}""";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>A route that is added and does not pass the meter fails here.</summary>
    [Fact]
    public async Task Every_route_that_reaches_an_engine_is_metered()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, context => AnswerAsync(context, "application/json", Whole));
        var routes = host.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(endpoint => endpoint.RoutePattern.RawText!.StartsWith("/v1/", StringComparison.Ordinal)).ToArray();
        routes.Length.ShouldBeGreaterThan(15);

        var before = 0L;
        foreach (var route in routes)
        {
            var path = route.RoutePattern.RawText!;
            var kind = route.Metadata.GetMetadata<GatewayRoute>();
            using var answer = await host.Client.PostAsync(new Uri(path, UriKind.Relative), Body(kind?.Body), Ct);
            var reached = engine.Requests;
            var requests = (await UsageAsync(host)).GetProperty("total").GetProperty("requests").GetInt64();
            requests.ShouldBe(reached, path);
            (kind is not null).ShouldBe(reached > before, path);
            before = reached;
        }
        before.ShouldBeGreaterThan(15);
        var total = (await UsageAsync(host)).GetProperty("total");
        (total.GetProperty("prompt_tokens").GetInt64(), total.GetProperty("completion_tokens").GetInt64()).ShouldBe((7 * before, 5 * before));
        await EveryDirectRouteAsync([.. host.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>().Select(route => route.RoutePattern.RawText!)]);
    }

    /// <summary>Whatever path of the control plane or of an engine is asked for at a public port: what reaches the engine is counted.</summary>
    private static async Task EveryDirectRouteAsync(string[] others)
    {
        using var surroundings = new TestNode();
        await using var proxy = new ProxyAlone(surroundings) { Answer = context => AnswerAsync(context, "application/json", Whole) };
        await proxy.ServeAsync(DirectState.Ready);
        var kinds = GatewayRoutes.All.SelectMany(route => ((string[])[route.PublicPath, route.EnginePath]).Select(path => (path, route.Body))).DistinctBy(pair => pair.path)
            .ToDictionary(pair => pair.path, pair => (BodyKind?)pair.Body);

        foreach (var path in kinds.Keys.Concat(others.Where(path => path.StartsWith('/') && !path.Contains('{', StringComparison.Ordinal))).Distinct())
        {
            var before = (Reached: proxy.Asked, proxy.Used().Requests);
            using var answer = await proxy.Client.PostAsync(new Uri(path, UriKind.Relative), Body(kinds.GetValueOrDefault(path)), Ct);
            (proxy.Used().Requests - before.Requests).ShouldBe(proxy.Asked - before.Reached, path);
            (proxy.Asked - before.Reached).ShouldBe(kinds.ContainsKey(path) ? 1 : 0, path);
        }

        kinds.Count.ShouldBeGreaterThan(20);
        proxy.Used().ShouldBe(new UsageCount(kinds.Count, 0, 0, 7 * kinds.Count, 5 * kinds.Count));
    }

    /// <summary>What a backend that speaks gRPC cannot be asked is refused and not counted; everything else is.</summary>
    [Fact]
    public async Task Every_route_that_reaches_a_grpc_backend_is_metered()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Speak = _ => throw new RpcException(RpcCode.Internal, "hoarse");
        var bodies = new Dictionary<string, string>
        {
            ["/v1/chat/completions"] = """{"model":"m","messages":[{"role":"user","content":"x"}]}""",
            ["/v1/completions"] = """{"model":"m","prompt":"x"}""",
            ["/v1/embeddings"] = """{"model":"m","input":"x"}""",
            ["/v1/rerank"] = """{"model":"m","query":"x","documents":["y"]}""",
            ["/v1/tokenize"] = """{"model":"m","content":"x"}""",
            ["/v1/detokenize"] = """{"model":"m","tokens":[1]}""",
            ["/v1/audio/speech"] = """{"model":"m","input":"x"}""",
            ["/tts"] = """{"model":"m","input":"x"}""",
            ["/v1/audio/transcriptions"] = "",
            ["/v1/audio/translations"] = "",
        };
        var routes = host.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(endpoint => endpoint.Metadata.GetMetadata<GatewayRoute>() is not null).ToArray();

        var before = 0;
        foreach (var route in routes)
        {
            var path = route.RoutePattern.RawText!;
            using var body = bodies.GetValueOrDefault(path) is { Length: > 0 } json ? Json(json) : Body(route.Metadata.GetMetadata<GatewayRoute>()!.Body);
            using var answer = await host.Client.PostAsync(new Uri(path, UriKind.Relative), body, Ct);
            var reached = backend.Asked.Count;
            (await UsageAsync(host)).GetProperty("total").GetProperty("requests").GetInt64().ShouldBe(reached, path);
            (reached > before).ShouldBe(bodies.ContainsKey(path), path);
            before = reached;
        }
        before.ShouldBe(bodies.Count);
    }

    [Fact]
    public async Task A_stream_whose_client_did_not_ask_for_the_count_is_counted_and_does_not_show_it()
    {
        await using var host = await ControlPlane.StartAsync();
        var got = "";
        const string Word = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", Done = "data: [DONE]\n\n";
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            got = await new StreamReader(context.Request.Body).ReadToEndAsync(Ct);
            await WriteAsync(context, "text/event-stream", Word + Word + $"data: {Whole}\n\n" + Done);
        });

        var plain = await PostAsync(host, """{"model":"m","stream":true}""");
        got.ShouldBe("""{"model":"m","stream":true,"stream_options":{"include_usage":true}}""");
        var asked = await PostAsync(host, """{"model":"m","stream":true,"stream_options":{"include_usage":true}}""");

        plain.ShouldBe(Word + Word + Done);
        asked.ShouldBe(Word + Word + $"data: {Whole}\n\n" + Done);
        Total(await UsageAsync(host)).ShouldBe((2, 0, 0, 14, 10));
    }

    [Fact]
    public async Task Of_a_stream_that_is_given_up_what_was_passed_on_is_counted()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await context.Request.Body.CopyToAsync(Stream.Null, Ct);
            context.Response.ContentType = "text/event-stream";
            await context.Response.WriteAsync("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n", Ct);
            for (var i = 0; i < 3; i++)
                await context.Response.WriteAsync("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", Ct);
            await context.Response.Body.FlushAsync(Ct);
            await Task.Delay(Timeout.Infinite, context.RequestAborted);
        });
        using (var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct))
        using (var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = Json("""{"model":"m","stream":true}""") })
        using (var answer = await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, leave.Token))
        {
            using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(leave.Token));
            for (var events = 0; events < 4; events++)
            {
                while (await reader.ReadLineAsync(leave.Token) != "")
                {
                }
            }
        }

        var usage = await Deadline.UntilAsync(() => UsageAsync(host), usage => Total(usage).Aborted == 1);

        Total(usage).ShouldBe((1, 1, 0, 0, 3));
    }

    [Fact]
    public async Task What_an_engine_refuses_is_a_request_without_tokens()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, context =>
        {
            context.Response.StatusCode = 400;
            return AnswerAsync(context, "application/json", """{"error":{"message":"no"}}""");
        });

        await PostAsync(host, """{"model":"m"}""");
        await PostAsync(host, """{"model":"unknown"}""");

        Total(await UsageAsync(host)).ShouldBe((1, 0, 1, 0, 0));
    }

    [Fact]
    public async Task A_stream_whose_engine_tells_no_count_is_counted_by_its_events()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, context => AnswerAsync(context, "text/event-stream",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n"));

        await PostAsync(host, """{"model":"m","stream":true}""");

        Total(await UsageAsync(host)).ShouldBe((1, 0, 0, 0, 1));
    }

    [Fact]
    public async Task What_was_used_stays_when_key_and_deployment_are_gone()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        await using var engine = await StandInEngine.StartAsync(host, context => AnswerAsync(context, "application/json", Whole));
        var node = await QuietNode.AddAsync(host);
        var deployment = await host.Client.RecordAsync(node.Id, 8101, "served");
        var routes = host.Services.GetRequiredService<RouteSource>();
        var uid = (await node.RowAsync(deployment)).Uid;
        routes.Publish(-2, [routes.Current.Routes[0] with { DeploymentId = deployment, DeploymentUid = uid, ServedName = "served", Owner = "team" }], routes.Mark());
        var (key, id, _) = await host.Client.MakeKeyAsync("""{"label":"first"}""");
        var (other, otherId, _) = await host.Client.MakeKeyAsync("""{"label":"second"}""");
        foreach (var used in (string[])[key, key, other])
            (await host.Client.ChatAsync("served", used)).EnsureSuccessStatusCode();
        var before = await UsageAsync(host, "?group_by=key,deployment,owner");

        (await host.Client.KeysAsync("DELETE", $"/{id}")).EnsureSuccessStatusCode();
        (await host.Client.KeysAsync("DELETE", $"/{otherId}?acknowledge_open_gateway=true")).EnsureSuccessStatusCode();
        (await host.Client.DeleteAsync(new Uri($"/api/deployments/{deployment}", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        (await host.Client.PostAsync(new Uri("/api/admin/purge", UriKind.Relative), Json("{}"), Ct)).EnsureSuccessStatusCode();

        var rows = before.GetProperty("data").EnumerateArray().Select(row => (row.GetProperty("key_id").GetInt32(), row.GetProperty("key_label").GetString(),
            row.GetProperty("deployment_uid").GetString(), row.GetProperty("deployment_id").GetInt32(), row.GetProperty("owner").GetString(), row.GetProperty("total_tokens").GetInt64()));
        rows.ShouldBe([(id, "first", uid, deployment, "team", 24), (otherId, "second", uid, deployment, "team", 12)]);
        (await UsageAsync(host, "?group_by=key,deployment,owner")).ToString().ShouldBe(before.ToString());
        (await UsageAsync(host, $"?key_id={otherId}")).GetProperty("total").GetProperty("total_tokens").GetInt64().ShouldBe(12);
        (await UsageAsync(host, $"?deployment_id={deployment}")).GetProperty("total").GetProperty("total_tokens").GetInt64().ShouldBe(36);
    }

    [Fact]
    public async Task Use_is_told_by_key_deployment_owner_and_day()
    {
        var time = new ShiftedTime();
        if (time.GetUtcNow().TimeOfDay > new TimeSpan(23, 50, 0))
            time.Advance(TimeSpan.FromHours(1)); // the day is to last as long as the test
        await using var host = await ControlPlane.StartAsync(configure: services => services.AddSingleton<TimeProvider>(time));
        await using var engine = await StandInEngine.StartAsync(host, context => AnswerAsync(context, "application/json", Whole));
        await PostAsync(host, """{"model":"m"}""");
        var today = time.GetUtcNow().ToString("yyyy-MM-dd", System.Globalization.CultureInfo.InvariantCulture);

        var row = (await UsageAsync(host, "?group_by=day,owner,key,deployment")).GetProperty("data").EnumerateArray().Single();
        var days = (await UsageAsync(host, $"?group_by=day&from={today}&to={today}")).GetProperty("data").EnumerateArray().Single();
        var none = (await UsageAsync(host, "?owner=nobody")).GetProperty("data").EnumerateArray();

        row.ToString().ShouldBe($$"""{"day":"{{today}}","key_id":0,"key_label":"","deployment_uid":"stand-in","deployment_id":-1,"model":"m","owner":"tests","requests":1,"aborted_requests":0,"failed_requests":0,"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}""");
        days.EnumerateObject().Select(p => p.Name).ShouldBe(["day", "requests", "aborted_requests", "failed_requests", "prompt_tokens", "completion_tokens", "total_tokens"]);
        none.ShouldBeEmpty();
        (await host.Client.GetStringAsync(new Uri("/api/usage?format=csv&group_by=owner,day", UriKind.Relative), Ct))
            .ShouldBe($"day,owner,requests,aborted_requests,failed_requests,prompt_tokens,completion_tokens,total_tokens\r\n{today},tests,1,0,0,7,5,12\r\n");
    }

    [Fact]
    public void A_label_is_no_formula_in_a_spreadsheet()
    {
        var group = new UsageGroup { KeyId = 1, KeyLabel = "=cmd(\"x\"),1" };

        UsageService.ToCsv(new UsageRead(default, default, ["key"], [group], new UsageSum()))
            .ShouldEndWith("\r\n1,\"'=cmd(\"\"x\"\"),1\",0,0,0,0,0,0\r\n");
    }

    [Theory]
    [InlineData("?from=yesterday", "from")]
    [InlineData("?to=2026-13-01", "to")]
    [InlineData("?from=2026-02-02&to=2026-02-01", "from")]
    [InlineData("?group_by=model", "group_by")]
    [InlineData("?format=xml", "format")]
    public async Task What_cannot_be_told_is_refused_by_name(string query, string field)
    {
        await using var host = await ControlPlane.StartAsync();

        using var answer = await host.Client.GetAsync(new Uri("/api/usage" + query, UriKind.Relative), Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        var problem = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        problem.GetProperty("errors").EnumerateObject().Single().Name.ShouldBe(field);
    }

    private static (long Requests, long Aborted, long Failed, long Prompt, long Completion) Total(JsonElement usage)
    {
        var total = usage.GetProperty("total");
        long Read(string name) => total.GetProperty(name).GetInt64();
        return (Read("requests"), Read("aborted_requests"), Read("failed_requests"), Read("prompt_tokens"), Read("completion_tokens"));
    }

    private static Task<JsonElement> UsageAsync(ControlPlane host, string query = "") => host.Client.JsonAsync("/api/usage" + query);

    private static async Task<string> PostAsync(ControlPlane host, string body)
    {
        using var answer = await host.Client.PostAsync(new Uri("/v1/chat/completions", UriKind.Relative), Json(body), Ct);
        return await answer.Content.ReadAsStringAsync(Ct);
    }

    private static HttpContent Body(BodyKind? kind)
    {
        if (kind != BodyKind.Multipart)
            return Json("""{"model":"m"}""");
        var form = new MultipartFormDataContent();
        form.Add(new ByteArrayContent(new byte[100_000]), "file", "a.wav");
        form.Add(new StringContent("m"), "model");
        return form;
    }

    private static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    private static async Task AnswerAsync(HttpContext context, string type, string text)
    {
        await context.Request.Body.CopyToAsync(Stream.Null, Ct);
        await WriteAsync(context, type, text);
    }

    private static Task WriteAsync(HttpContext context, string type, string text)
    {
        context.Response.ContentType = type;
        return context.Response.WriteAsync(text, Ct);
    }
}
