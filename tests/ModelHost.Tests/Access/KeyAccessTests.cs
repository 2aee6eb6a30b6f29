using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Gateway;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Gateway;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Access;

/// <summary>What API keys open and close.</summary>
public sealed class KeyAccessTests
{
    private const string Models = "/v1/models";
    private const string Everywhere = "http://0.0.0.0:0";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_first_permanent_key_closes_the_gateway_for_all_and_nothing_else()
    {
        await using var host = await StartAsync();
        var (temporary, _, _) = await host.Client.MakeKeyAsync("""{"label": "t", "ttl_seconds": 3600, "models": ["m"]}""");
        foreach (var key in (string?[])[null, "sk-anything", temporary, host.AdminKey])
            (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK, "temporary keys leave it open");

        var (permanent, _, _) = await host.Client.MakeKeyAsync("""{"label": "scoped", "deployment_ids": []}""");

        foreach (var path in (string[])[Models, "/v1/models/m", "/v1/anything"])
        {
            await (await host.Client.AskAsync(path)).ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
            foreach (var key in (string[])["sk-anything", host.AdminKey])
                await (await host.Client.AskAsync(path, ("Authorization", $"Bearer {key}"))).ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
        }
        foreach (var key in (string[])[permanent, temporary])
            (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK);
        foreach (var path in (string[])["/api/deployments", "/api/api-keys", "/metrics", "/", "/health", "/openapi.json"])
            (await host.Client.StatusAsync(path, null)).ShouldBe(HttpStatusCode.OK, path);
    }

    [Fact]
    public async Task A_trusted_lan_has_no_gateway_without_keys_either()
    {
        await using var host = await StartAsync(Everywhere, "Access:TrustedLan=true");
        using var client = Client(host);
        (await client.StatusAsync(Models, null)).ShouldBe(HttpStatusCode.OK);

        await client.MakeKeyAsync();

        (await client.StatusAsync(Models, null)).ShouldBe(HttpStatusCode.Unauthorized);
        (await client.StatusAsync("/api/deployments", null)).ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Beyond_loopback_keys_open_what_they_are_for()
    {
        await using var host = await StartAsync(Everywhere);
        using var client = Client(host);
        var (inference, _, _) = await client.MakeKeyAsync("""{"label": "a"}""", host.AdminKey);
        var (metrics, _, _) = await client.MakeKeyAsync("""{"label": "a", "roles": ["metrics"]}""", host.AdminKey);
        var (both, _, _) = await client.MakeKeyAsync("""{"label": "a", "roles": ["metrics", "inference"]}""", host.AdminKey);
        foreach (var (path, key, status, code) in ((string, string?, int, string?)[])
            [
                (Models, null, 401, "invalid_api_key"), (Models, "wrong", 401, "invalid_api_key"), (Models, host.AdminKey, 401, "invalid_api_key"), (Models, inference, 200, null),
                (Models, both, 200, null), (Models, metrics, 403, "role_forbidden"), ("/v1/anything", metrics, 403, "role_forbidden"), ("/v1/anything", inference, 404, "not_found"),
                ("/metrics", null, 401, "access.key_needed"), ("/metrics", "wrong", 401, "access.key_needed"), ("/metrics", host.AdminKey, 200, null), ("/metrics", metrics, 200, null),
                ("/metrics", both, 200, null), ("/metrics", inference, 403, "access.role_needed"),
                ("/api/deployments", null, 401, "access.key_needed"), ("/api/deployments", both, 401, "access.key_needed"), ("/api/deployments", host.AdminKey, 200, null),
                ("/api/api-keys", both, 401, "access.key_needed"), ("/api/settings", both, 401, "access.key_needed"), ("/ws", both, 401, "access.key_needed"), ("/nowhere", both, 401, "access.key_needed"),
                ("/health", "wrong", 200, null),
            ])
        {
            using var answer = await client.AskAsync(path, key is null ? [] : [("Authorization", $"Bearer {key}")]);
            if (code is null || !path.StartsWith("/v1", StringComparison.Ordinal))
            {
                answer.StatusCode.ShouldBe((HttpStatusCode)status, $"{path} {key}");
                if (code is not null)
                    JsonDocument.Parse(await answer.Content.ReadAsStringAsync(Ct)).RootElement.Text("code").ShouldBe(code);
            }
            else
                await answer.ShouldBeOpenAiErrorAsync((HttpStatusCode)status, code);
            answer.Headers.WwwAuthenticate.ToString().ShouldBe(status == 401 ? "Bearer" : "");
        }
    }

    [Fact]
    public async Task A_key_counts_in_one_form_alone()
    {
        await using var host = await StartAsync();
        var (key, _, _) = await host.Client.MakeKeyAsync();
        var (other, _, _) = await host.Client.MakeKeyAsync();
        var wrong = key[..^1] + (key[^1] == '0' ? '1' : '0');
        foreach (var (isGood, headers) in ((bool, (string, string)[])[])
            [
                (true, [("Authorization", $"Bearer {key}")]), (true, [("Authorization", $"bearer {key}")]), (true, [("authorization", $"Bearer   {key}  ")]),
                (true, [("x-api-key", key)]), (true, [("X-Api-Key", $" {key} ")]), (true, [("x-api-key", key), ("Authorization", $"Bearer {key}")]),
                (true, [("Authorization", $"Bearer {key}"), ("Host", "attacker.example")]), (true, [("Authorization", $"Bearer {key}"), ("X-Forwarded-For", "203.0.113.9")]),
                (true, [("Authorization", $"Bearer {key}"), ("Origin", "https://app.example")]),
                (false, [("Authorization", key)]), (false, [("Authorization", $"Basic {key}")]), (false, [("Authorization", $"Bearer{key}")]), (false, [("Authorization", $"Bearer Bearer {key}")]),
                (false, [("Authorization", $"Bearer {wrong}")]), (false, [("Authorization", $"Bearer {key.ToUpperInvariant()}")]), (false, [("Authorization", $"Bearer mh_sk_{key[6..].ToUpperInvariant()}")]),
                (false, [("Authorization", $"Bearer {key[..^8]}")]), (false, [("Authorization", $"Bearer {key}x")]), (false, [("Authorization", $"Bearer {key},{other}")]), (false, [("Authorization", $"Bearer {key} {key}")]),
                (false, [("Authorization", $"Bearer \"{key}\"")]), (false, [("Authorization", $"Bearer mh_tmp_{key[6..]}")]), (false, [("Authorization", "Bearer ")]), (false, [("Authorization", "")]),
                (false, [("Authorization", $"Bearer {key}"), ("x-api-key", other)]), (false, [("Authorization", $"Bearer {key}"), ("x-api-key", "")]), (false, [("Authorization", "Basic eDp5"), ("x-api-key", key)]),
                (false, [("x-api-key", wrong)]), (false, [("x-api-key", $"Bearer {key}")]), (false, [("api-key", key)]), (false, [("Cookie", $"key={key}")]), (false, [("Proxy-Authorization", $"Bearer {key}")]),
                (false, [("Host", "attacker.example")]), (false, [("Host", "localhost")]),
            ])
        {
            using var answer = await host.Client.AskAsync(Models, headers);
            if (isGood)
                answer.StatusCode.ShouldBe(HttpStatusCode.OK, string.Join(", ", headers));
            else
                (await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key")).ShouldNotContain(key[6..]);
        }
        foreach (var query in (string[])["key", "api_key", "access_token", "authorization"])
            (await host.Client.StatusAsync($"{Models}?{query}={key}", null)).ShouldBe(HttpStatusCode.Unauthorized);
        // the header of Anthropic's SDKs is for inference, not for the administrator's routes
        (await host.Client.AskAsync("/api/api-keys", ("x-api-key", key))).StatusCode.ShouldBe(HttpStatusCode.OK, "no credential at all, from this machine");
    }

    [Theory]
    [InlineData("Authorization: Bearer {0}\r\nAuthorization: Bearer {0}")]
    [InlineData("Authorization: Bearer {0}\r\nauthorization: Bearer wrong")]
    [InlineData("X-Api-Key: {0}\r\nX-Api-Key: {0}")]
    [InlineData("Authorization: Bearer {0}\r\nX-Api-Key: {0}\r\nX-Api-Key: {0}")]
    public async Task A_key_sent_twice_is_none(string headers)
    {
        await using var host = await StartAsync();
        var (key, _, _) = await host.Client.MakeKeyAsync();

        var answer = await RawHttp.SendAsync(host.Url,
            $"GET {Models} HTTP/1.1\r\nHost: {host.Url.Authority}\r\nConnection: close\r\n{string.Format(System.Globalization.CultureInfo.InvariantCulture, headers, key)}\r\n\r\n", halfClose: false, Ct, asItIs: true);

        answer.ShouldStartWith("HTTP/1.1 401 ");
        answer.ShouldContain("invalid_api_key");
    }

    [Theory]
    [InlineData("/V1/Models")]
    [InlineData("/v1//models")]
    [InlineData("//v1/models")]
    [InlineData("/v1/models/")]
    [InlineData("/v1/models//")]
    [InlineData("/v1/./models")]
    [InlineData("/v1/x/../models")]
    [InlineData("/health/../v1/models")]
    [InlineData("/health/%2e%2e/v1/models")]
    [InlineData("/health/..%2fv1/models")]
    [InlineData("/v1%2fmodels")]
    [InlineData("/v1/%6dodels")]
    [InlineData("/%76%31/models")]
    [InlineData("/v1/models;x=y")]
    [InlineData("/v1;/models")]
    [InlineData("/health;/../v1/models")]
    [InlineData("/v1/models%00")]
    [InlineData("/v1/models%20")]
    [InlineData("/v1/models?/health")]
    [InlineData("/v1/models#/health")]
    [InlineData("http://attacker.example/v1/models")]
    [InlineData("/v1\\models")]
    public async Task No_spelling_of_a_path_gets_past_a_closed_gateway(string target)
    {
        await using var host = await StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, _ => Task.CompletedTask, "canary-model");
        var (key, _, _) = await host.Client.MakeKeyAsync("""{"label": "a", "roles": ["metrics"]}""");
        foreach (var credential in (string[])["", "Authorization: Bearer sk-x\r\n", $"Authorization: Bearer {key}\r\n"])
        {
            var answer = await RawHttp.SendAsync(host.Url, $"GET {target} HTTP/1.1\r\nHost: localhost\r\n{credential}Connection: close\r\n\r\n", halfClose: false, Ct, asItIs: true);

            answer.ShouldMatch("^HTTP/1.1 4[0-9]{2} ", $"{target} {credential}");
            answer.ShouldNotContain("canary-model");
        }
    }

    [Fact]
    public async Task Models_out_of_scope_are_forbidden_and_not_listed()
    {
        await using var host = await StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, context => context.Response.WriteAsync("{}", Ct), "unscoped");
        var node = await QuietNode.AddAsync(host);
        var (one, two) = (await host.Client.RecordAsync(node.Id, 8101, "one"), await host.Client.RecordAsync(node.Id, 8102, "two"));
        var routes = host.Services.GetRequiredService<RouteSource>();
        async Task<ModelRoute> RouteAsync(int id, string served, string[]? lora = null)
        {
            var url = routes.Current.Routes[0].EngineUrl;
            var route = new ModelRoute(id, DeploymentStatus.Running, served, "org/model", lora ?? [], "tests", DateTimeOffset.UnixEpoch, url, StandInEngine.Key);
            return route with { DeploymentUid = (await node.RowAsync(id)).Uid };
        }
        routes.Publish(-2, [await RouteAsync(one, "one", ["sql"]), await RouteAsync(two, "two")], routes.Mark());
        var (all, _, _) = await host.Client.MakeKeyAsync();
        var (first, id, _) = await host.Client.MakeKeyAsync($$"""{"label": "a", "deployment_ids": [{{one}}]}""");
        var (named, _, _) = await host.Client.MakeKeyAsync("""{"label": "a", "models": ["two", "sql"]}""");
        var (nothing, _, _) = await host.Client.MakeKeyAsync("""{"label": "a", "models": []}""");
        foreach (var (key, model, status, code) in ((string, string, int, string?)[])
            [
                (all, "one", 200, null), (all, "two", 200, null), (all, "org/model", 400, "model_ambiguous"), (all, "nobody", 404, "model_not_found"),
                (first, "one", 200, null), (first, "sql", 200, null), (first, "org/model", 200, null), (first, "two", 403, "model_forbidden"), (first, "nobody", 404, "model_not_found"),
                (named, "two", 200, null), (named, "sql", 200, null), (named, "org/model", 200, null), (named, "one", 403, "model_forbidden"),
                (nothing, "one", 403, "model_forbidden"), (nothing, "nobody", 404, "model_not_found"),
            ])
        {
            using var answer = await host.Client.ChatAsync(model, key);
            if (code is null)
                answer.StatusCode.ShouldBe((HttpStatusCode)status, model);
            else
            {
                var text = await answer.ShouldBeOpenAiErrorAsync((HttpStatusCode)status, code, "model");
                if (key != all && code == "model_not_found")
                    text.ShouldNotContain("two");
            }
        }
        engine.Requests.ShouldBe(8);
        async Task<string?[]> ListedAsync(string key) => [.. JsonDocument.Parse(await (await host.Client.AskAsync(Models, ("Authorization", $"Bearer {key}"))).Content.ReadAsStringAsync(Ct))
            .RootElement.GetProperty("data").EnumerateArray().Select(card => card.Text("id"))];
        (await ListedAsync(all)).ShouldBe(["unscoped", "one", "sql", "two"]);
        (await ListedAsync(first)).ShouldBe(["one", "sql"]);
        (await ListedAsync(named)).ShouldBe(["sql", "two"]);
        (await ListedAsync(nothing)).ShouldBeEmpty();
        (await host.Client.StatusAsync("/v1/models/one", first)).ShouldBe(HttpStatusCode.OK);
        await (await host.Client.AskAsync("/v1/models/two", ("Authorization", $"Bearer {first}"))).ShouldBeOpenAiErrorAsync(HttpStatusCode.Forbidden, "model_forbidden", "model");
        await (await host.Client.AskAsync("/v1/models/nobody", ("Authorization", $"Bearer {first}"))).ShouldBeOpenAiErrorAsync(HttpStatusCode.NotFound, "model_not_found", "model");

        await host.Client.PatchKeyAsync(id, $$"""{"deployment_ids": [{{two}}]}""");
        (await host.Client.ChatAsync("two", first)).StatusCode.ShouldBe(HttpStatusCode.OK, "a change counts from the next request on");
        (await host.Client.ChatAsync("one", first)).StatusCode.ShouldBe(HttpStatusCode.Forbidden);
    }

    [Fact]
    public async Task A_key_is_not_passed_on_to_the_engine()
    {
        await using var host = await StartAsync();
        var headers = "";
        await using var engine = await StandInEngine.StartAsync(host, context =>
        {
            headers = string.Join('\n', context.Request.Headers.Select(header => $"{header.Key}: {header.Value}"));
            return context.Response.WriteAsync("{}", Ct);
        });
        var (key, _, _) = await host.Client.MakeKeyAsync();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat("m")), Headers = { { "x-api-key", key } } };

        (await host.Client.SendAsync(request, Ct)).StatusCode.ShouldBe(HttpStatusCode.OK);

        headers.ShouldNotContain(key);
        headers.ShouldContain(StandInEngine.Key);
    }

    [Fact]
    public async Task Revocation_counts_from_its_answer_on()
    {
        await using var host = await StartAsync();
        await host.Client.MakeKeyAsync();
        for (var i = 0; i < 50; i++)
        {
            var (key, id, _) = await host.Client.MakeKeyAsync();
            (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK);
            (await host.Client.KeysAsync("DELETE", $"/{id}")).EnsureSuccessStatusCode();
            (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.Unauthorized);
        }
    }

    private static Task<ControlPlane> StartAsync(string urls = "http://127.0.0.1:0", params string[] configuration) =>
        ControlPlane.StartAsync(urls: urls, configure: ScriptedNode.WithoutLocalNode, configuration: configuration);

    private static HttpClient Client(ControlPlane host) => new() { BaseAddress = new Uri($"http://127.0.0.1:{host.Url.Port}") };
}
