using System.Net;
using System.Text;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Data;
using ModelHost.Features.ApiKeys;
using ModelHost.Hosting;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.ApiKeys;

/// <summary>Keys through <c>/api/api-keys</c>.</summary>
public sealed class ApiKeyTests
{
    private const string Models = "/v1/models";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_key_is_made_listed_used_and_revoked()
    {
        await using var host = await StartAsync();

        using var answer = await host.Client.KeysAsync("POST", "", """{"label": "team"}""");
        var made = JsonDocument.Parse(await answer.Content.ReadAsStringAsync(Ct)).RootElement;
        var key = made.Text("key")!;

        answer.Headers.CacheControl!.NoStore.ShouldBeTrue();
        made.EnumerateObject().Select(field => field.Name).ShouldBe(
            ["id", "label", "prefix", "key", "created_at", "last_used_at", "expires_at", "allowed_deployment_ids", "allowed_models", "roles", "temporary", "made_by"], ignoreOrder: true);
        (made.Text("label"), made.Text("prefix"), made.GetProperty("temporary").GetBoolean()).ShouldBe(("team", key[..12], false));
        foreach (var none in (string[])["last_used_at", "expires_at", "allowed_deployment_ids", "allowed_models", "made_by"])
            made.GetProperty(none).ValueKind.ShouldBe(JsonValueKind.Null, none);
        Words(made, "roles").ShouldBe(["inference"]);

        (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK);
        var listed = (await host.Client.JsonAsync("/api/api-keys/")).EnumerateArray().ShouldHaveSingleItem();
        listed.TryGetProperty("key", out _).ShouldBeFalse();
        listed.GetProperty("last_used_at").GetDateTimeOffset().ShouldBe(TimeProvider.System.GetUtcNow(), TimeSpan.FromMinutes(5));

        (await host.Client.KeysAsync("DELETE", $"/{made.Id()}?acknowledge_open_gateway=true")).StatusCode.ShouldBe(HttpStatusCode.NoContent);
        (await host.Client.JsonAsync("/api/api-keys")).GetArrayLength().ShouldBe(0);
        await host.Client.KeysAsync("DELETE", $"/{made.Id()}").ShouldBeRefusedAsync(HttpStatusCode.NotFound, "api_key.not_found");
    }

    [Theory]
    [InlineData("", "")]
    [InlineData("[]", "")]
    [InlineData("{", "")]
    [InlineData("{}", "label")]
    [InlineData("""{"label": null}""", "label")]
    [InlineData("""{"label": ""}""", "label")]
    [InlineData("""{"label": "  "}""", "label")]
    [InlineData("""{"label": "a\nb"}""", "label")]
    [InlineData("""{"label": "\ud800"}""", null)]
    [InlineData("""{"label": 7}""", "label")]
    [InlineData("""{"label": "LONG"}""", "label")]
    [InlineData("""{"label": "a", "ttl_seconds": 0}""", "ttl_seconds")]
    [InlineData("""{"label": "a", "ttl_seconds": 86401, "models": ["m"]}""", "ttl_seconds")]
    [InlineData("""{"label": "a", "ttl_seconds": -1}""", "ttl_seconds")]
    [InlineData("""{"label": "a", "ttl_seconds": "60"}""", "ttl_seconds")]
    [InlineData("""{"label": "a", "ttl_seconds": 1.5}""", "ttl_seconds")]
    [InlineData("""{"label": "a", "ttl_seconds": 99999999999}""", "ttl_seconds")]
    [InlineData("""{"label": "a", "ttl_seconds": 60}""", "deployment_ids")]
    [InlineData("""{"label": "a", "ttl_seconds": 60, "models": ["m"], "expires_at": "2999-01-01T00:00:00Z"}""", "expires_at")]
    [InlineData("""{"label": "a", "expires_at": "2001-01-01T00:00:00Z"}""", "expires_at")]
    [InlineData("""{"label": "a", "expires_at": "tomorrow"}""", "expires_at")]
    [InlineData("""{"label": "a", "expires_at": 7}""", "expires_at")]
    [InlineData("""{"label": "a", "deployment_ids": 1}""", "deployment_ids")]
    [InlineData("""{"label": "a", "deployment_ids": [1, null]}""", "deployment_ids[1]")]
    [InlineData("""{"label": "a", "deployment_ids": ["1"]}""", "deployment_ids[0]")]
    [InlineData("""{"label": "a", "deployment_ids": [4711]}""", "deployment_ids")]
    [InlineData("""{"label": "a", "deployment_ids": [-1]}""", "deployment_ids")]
    [InlineData("""{"label": "a", "deployment_ids": MANY}""", "deployment_ids")]
    [InlineData("""{"label": "a", "models": "m"}""", "models")]
    [InlineData("""{"label": "a", "models": [null]}""", "models[0]")]
    [InlineData("""{"label": "a", "models": ["m", ""]}""", "models[1]")]
    [InlineData("""{"label": "a", "models": ["m", "a\u0000"]}""", "models[1]")]
    [InlineData("""{"label": "a", "models": ["LONG"]}""", "models[0]")]
    [InlineData("""{"label": "a", "models": MANY}""", null)]
    [InlineData("""{"label": "a", "roles": []}""", "roles")]
    [InlineData("""{"label": "a", "roles": ["admin"]}""", "roles[0]")]
    [InlineData("""{"label": "a", "roles": ["inference", "Metrics"]}""", "roles[1]")]
    [InlineData("""{"label": "a", "roles": [null]}""", "roles[0]")]
    [InlineData("""{"label": "a", "roles": "inference"}""", "roles")]
    [InlineData("""{"label": "a", "deployment_id": []}""", "deployment_id")]
    [InlineData("""{"label": "a", "model": null}""", "model")]
    [InlineData("""{"label": "a", "key": "mh_sk_mine"}""", "key")]
    public async Task What_is_wrong_is_named_and_nothing_is_made(string body, string? field)
    {
        await using var host = await StartAsync();
        body = body.Replace("LONG", new string('x', 256), StringComparison.Ordinal)
            .Replace("MANY", $"[{string.Join(',', Enumerable.Repeat("1", 1001))}]", StringComparison.Ordinal);

        await host.Client.KeysAsync("POST", "", body).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);

        (await host.Client.JsonAsync("/api/api-keys")).GetArrayLength().ShouldBe(0);
        (await host.Client.StatusAsync(Models, null)).ShouldBe(HttpStatusCode.OK, "nothing has closed the gateway");
    }

    [Fact]
    public async Task A_change_is_of_the_fields_that_are_given_alone()
    {
        await using var host = await StartAsync();
        var node = await QuietNode.AddAsync(host);
        var (one, two) = (await host.Client.RecordAsync(node.Id, 8101, "one"), await host.Client.RecordAsync(node.Id, 8102, "two"));
        var (_, id, _) = await host.Client.MakeKeyAsync($$"""{"label": "a", "deployment_ids": [{{two}}, {{one}}, {{two}}], "models": ["m", "b"], "expires_at": "2999-01-01T02:00:00+02:00", "roles": ["metrics", "inference"]}""");
        void ShouldBe(JsonElement key, string label, int[]? deployments, string[]? models, string? expires, params string[] roles)
        {
            key.Text("label").ShouldBe(label);
            (key.GetProperty("allowed_deployment_ids") is { ValueKind: JsonValueKind.Array } ids ? ids.EnumerateArray().Select(i => i.GetInt32()).ToArray() : null).ShouldBe(deployments);
            (key.GetProperty("allowed_models").ValueKind == JsonValueKind.Null ? null : Words(key, "allowed_models")).ShouldBe(models);
            key.Text("expires_at").ShouldBe(expires);
            Words(key, "roles").ShouldBe(roles);
        }
        const string Then = "2999-01-01T00:00:00+00:00";

        ShouldBe(await host.Client.PatchKeyAsync(id, """{"label": "b"}"""), "b", [one, two], ["b", "m"], Then, "inference", "metrics");
        ShouldBe(await host.Client.PatchKeyAsync(id, "{}"), "b", [one, two], ["b", "m"], Then, "inference", "metrics");
        ShouldBe(await host.Client.PatchKeyAsync(id, $$"""{"deployment_ids": [{{one}}]}"""), "b", [one], ["b", "m"], Then, "inference", "metrics");
        ShouldBe(await host.Client.PatchKeyAsync(id, """{"models": ["m"], "roles": ["inference"]}"""), "b", [one], ["m"], Then, "inference");
        ShouldBe(await host.Client.PatchKeyAsync(id, """{"deployment_ids": []}"""), "b", [], ["m"], Then, "inference");
        ShouldBe(await host.Client.PatchKeyAsync(id, """{"deployment_ids": null}"""), "b", null, ["m"], Then, "inference");
        ShouldBe(await host.Client.PatchKeyAsync(id, """{"models": null, "expires_at": null}"""), "b", null, null, null, "inference");

        var listed = (await host.Client.JsonAsync("/api/api-keys")).EnumerateArray().ShouldHaveSingleItem();
        ShouldBe(listed, "b", null, null, null, "inference");
    }

    [Theory]
    [InlineData("""{"label": null}""", "label")]
    [InlineData("""{"label": ""}""", "label")]
    [InlineData("""{"label": "\t"}""", "label")]
    [InlineData("""{"roles": null}""", "roles")]
    [InlineData("""{"roles": []}""", "roles")]
    [InlineData("""{"roles": ["inference", "x"]}""", "roles[1]")]
    [InlineData("""{"expires_at": "2001-01-01T00:00:00Z"}""", "expires_at")]
    [InlineData("""{"deployment_ids": [4711]}""", "deployment_ids")]
    [InlineData("""{"models": [""]}""", "models[0]")]
    [InlineData("""{"ttl_seconds": 60}""", "ttl_seconds")]
    [InlineData("""{"deployment_id": null}""", "deployment_id")]
    [InlineData("null", "")]
    public async Task A_wrong_change_changes_nothing(string body, string field)
    {
        await using var host = await StartAsync();
        var (_, id, made) = await host.Client.MakeKeyAsync("""{"label": "a", "models": ["m"]}""");

        await host.Client.KeysAsync("PATCH", $"/{id}", body).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);

        var listed = (await host.Client.JsonAsync("/api/api-keys")).EnumerateArray().ShouldHaveSingleItem();
        foreach (var name in (string[])["label", "allowed_models", "allowed_deployment_ids", "expires_at", "roles"])
            listed.GetProperty(name).ToString().ShouldBe(made.GetProperty(name).ToString());
    }

    [Fact]
    public async Task A_temporary_key_is_not_changed_and_one_that_there_is_not_is_not_found()
    {
        await using var host = await StartAsync();
        var (_, id, made) = await host.Client.MakeKeyAsync("""{"label": "a", "models": ["m"], "ttl_seconds": 60}""");

        made.Text("key").ShouldNotBeNull().ShouldStartWith("mh_tmp_");
        made.GetProperty("temporary").GetBoolean().ShouldBeTrue();
        (made.GetProperty("expires_at").GetDateTimeOffset() - made.GetProperty("created_at").GetDateTimeOffset()).ShouldBe(TimeSpan.FromSeconds(60));
        await host.Client.KeysAsync("PATCH", $"/{id}", """{"label": "b"}""").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "api_key.temporary");
        await host.Client.KeysAsync("PATCH", "/4711", """{"label": "b"}""").ShouldBeRefusedAsync(HttpStatusCode.NotFound, "api_key.not_found");
        await host.Client.KeysAsync("DELETE", "/4711").ShouldBeRefusedAsync(HttpStatusCode.NotFound, "api_key.not_found");
        await host.Client.KeysAsync("DELETE", "/x").ShouldBeRefusedAsync(HttpStatusCode.NotFound, "route.not_found");
    }

    [Fact]
    public async Task The_last_permanent_key_goes_only_when_that_is_acknowledged()
    {
        await using var host = await StartAsync();
        var (_, first, _) = await host.Client.MakeKeyAsync();
        var (key, last, _) = await host.Client.MakeKeyAsync("""{"label": "prometheus", "roles": ["metrics"], "expires_at": "2999-01-01T00:00:00Z"}""");
        var (_, temporary, _) = await host.Client.MakeKeyAsync("""{"label": "t", "ttl_seconds": 60, "models": ["m"]}""");

        (await host.Client.KeysAsync("DELETE", $"/{first}")).StatusCode.ShouldBe(HttpStatusCode.NoContent);
        (await host.Client.KeysAsync("DELETE", $"/{last}").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "api_key.last_permanent")).ShouldContain("acknowledge_open_gateway=true");
        await host.Client.KeysAsync("DELETE", $"/{last}?acknowledge_open_gateway=false").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "api_key.last_permanent");
        await host.Client.KeysAsync("DELETE", $"/{last}?acknowledge_open_gateway=yes").ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", "acknowledge_open_gateway");
        (await host.Client.StatusAsync(Models, null)).ShouldBe(HttpStatusCode.Unauthorized);
        (await host.Client.KeysAsync("DELETE", $"/{temporary}")).StatusCode.ShouldBe(HttpStatusCode.NoContent);
        (await host.Client.KeysAsync("DELETE", $"/{last}?acknowledge_open_gateway=true")).StatusCode.ShouldBe(HttpStatusCode.NoContent);

        (await host.Client.StatusAsync(Models, null)).ShouldBe(HttpStatusCode.OK);
        (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK, "any key is taken from this machine again");
    }

    [Fact]
    public async Task A_deleted_deployment_leaves_the_scope_and_an_emptied_one_stays_empty()
    {
        await using var host = await StartAsync();
        var node = await QuietNode.AddAsync(host);
        var (one, two) = (await host.Client.RecordAsync(node.Id, 8101, "one"), await host.Client.RecordAsync(node.Id, 8102, "two"));
        await host.Client.MakeKeyAsync($$"""{"label": "a", "deployment_ids": [{{one}}, {{two}}]}""");
        async Task<string> ScopeAsync() => (await host.Client.JsonAsync("/api/api-keys"))[0].GetProperty("allowed_deployment_ids").GetRawText();

        (await host.Client.DeleteAsync(new Uri($"/api/deployments/{one}", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        (await ScopeAsync()).ShouldBe($"[{two}]");
        (await host.Client.DeleteAsync(new Uri($"/api/deployments/{two}", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        (await ScopeAsync()).ShouldBe("[]");
    }

    [Fact]
    public async Task Changes_are_told_on_the_socket_once_they_can_be_read()
    {
        await using var host = await StartAsync();
        await using var socket = await EventSocket.OpenAsync(host.Url);
        const string Told = """{"type":"api_keys_changed"}""";

        var (_, id, _) = await host.Client.MakeKeyAsync();
        (await socket.NextAsync()).ShouldBe(Told);
        await host.Client.PatchKeyAsync(id, """{"label": "b"}""");
        (await socket.NextAsync()).ShouldBe(Told);
        await host.Client.KeysAsync("DELETE", $"/{id}").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "api_key.last_permanent");
        await host.Client.KeysAsync("DELETE", $"/{id}?acknowledge_open_gateway=true");
        (await socket.NextAsync()).ShouldBe(Told);
    }

    [Fact]
    public async Task Keys_and_their_last_use_outlive_a_restart_and_are_stored_as_hashes()
    {
        using var node = new TestNode();
        using var lines = new LogLines();
        void Log(IServiceCollection services)
        {
            ScriptedNode.WithoutLocalNode(services);
            services.AddSingleton<ILoggerProvider>(lines);
            services.Configure<LoggerFilterOptions>(filter => filter.Rules.Add(new LoggerFilterRule(typeof(LogLines).FullName, null, LogLevel.Trace, null)));
        }
        string key, temporary, unused;
        string? used;
        await using (var host = await ControlPlane.StartAsync(node, configure: Log))
        {
            (key, _, _) = await host.Client.MakeKeyAsync();
            (unused, _, _) = await host.Client.MakeKeyAsync();
            (temporary, _, _) = await host.Client.MakeKeyAsync("""{"label": "t", "ttl_seconds": 3600, "models": ["m"]}""", key);
            (await host.Client.StatusAsync(Models, temporary)).ShouldBe(HttpStatusCode.OK);
            (await host.Client.StatusAsync(Models, key + "0")).ShouldBe(HttpStatusCode.Unauthorized);
            await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
            (await db.ApiKeys.AllAsync(row => row.LastUsedAt == null, Ct)).ShouldBeTrue("a use is not written at once");
            used = (await host.Client.JsonAsync("/api/api-keys"))[0].Text("last_used_at");
        }
        var pepper = Path.Combine(node.Data, "keys", "api-key-pepper");
        File.GetUnixFileMode(pepper).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);

        await using (var host = await ControlPlane.StartAsync(node, configure: Log))
        {
            foreach (var good in (string[])[key, temporary, unused])
                (await host.Client.StatusAsync(Models, good)).ShouldBe(HttpStatusCode.OK);
            (await host.Client.StatusAsync(Models, null)).ShouldBe(HttpStatusCode.Unauthorized);
        }
        await using (var host = await ControlPlane.StartAsync(node, configure: Log))
        {
            var listed = await host.Client.JsonAsync("/api/api-keys");
            listed.EnumerateArray().ShouldAllBe(read => read.GetProperty("last_used_at").ValueKind == JsonValueKind.String);
            (listed[0].GetProperty("last_used_at").GetDateTimeOffset() - DateTimeOffset.Parse(used!, System.Globalization.CultureInfo.InvariantCulture)).ShouldBeGreaterThanOrEqualTo(TimeSpan.Zero);
        }

        foreach (var secret in (string[])[key, temporary, unused, key[6..], temporary[7..], key[12..], temporary[13..]])
        {
            lines.All.ShouldAllBe(line => !line.Contains(secret, StringComparison.Ordinal));
            foreach (var file in Directory.EnumerateFiles(node.Data, "*", SearchOption.AllDirectories))
                Encoding.Latin1.GetString(await ReadAsync(file)).ShouldNotContain(secret, Case.Sensitive, file);
        }
        lines.All.ShouldContain(line => line.StartsWith("API key 1 was made", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Without_the_pepper_no_key_is_right_and_the_gateway_stays_closed()
    {
        using var node = new TestNode();
        using var lines = new LogLines();
        string key;
        await using (var host = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode))
            (key, _, _) = await host.Client.MakeKeyAsync();
        var pepper = Path.Combine(node.Data, "keys", "api-key-pepper");
        var saved = await File.ReadAllTextAsync(pepper, Ct);

        File.Delete(pepper);
        await using (var host = await ControlPlane.StartAsync(node, configure: services => { ScriptedNode.WithoutLocalNode(services); services.AddSingleton<ILoggerProvider>(lines); }))
        {
            (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.Unauthorized);
            (await host.Client.StatusAsync(Models, null)).ShouldBe(HttpStatusCode.Unauthorized);
            lines.All.ShouldContain(line => line.StartsWith("None of the 1 API keys can match: keys/api-key-pepper", StringComparison.Ordinal));
        }
        await File.WriteAllTextAsync(pepper, saved[..20], Ct);
        (await Should.ThrowAsync<DataFolderException>(() => ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode))).Message.ShouldContain("api-key-pepper");
        await File.WriteAllTextAsync(pepper, saved, Ct);
        await using (var host = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode))
            (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Time_ends_keys_and_opens_nothing()
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var soon = time.GetUtcNow().AddHours(1).ToString("O", System.Globalization.CultureInfo.InvariantCulture);
        var (key, id, _) = await host.Client.MakeKeyAsync($$"""{"label": "a", "expires_at": "{{soon}}"}""");
        var (temporary, _, _) = await host.Client.MakeKeyAsync("""{"label": "t", "ttl_seconds": 60, "models": ["m"]}""");
        (await host.Client.StatusAsync(Models, temporary)).ShouldBe(HttpStatusCode.OK);

        time.Advance(TimeSpan.FromSeconds(61));
        (await host.Client.StatusAsync(Models, temporary)).ShouldBe(HttpStatusCode.Unauthorized);
        (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK);
        (await host.Client.JsonAsync("/api/api-keys")).EnumerateArray().Select(read => read.Id()).ShouldBe([id]);
        await using var socket = await EventSocket.OpenAsync(host.Url);
        await host.Services.GetRequiredService<ApiKeyService>().SweepAsync(Ct);
        (await socket.NextAsync()).ShouldBe("""{"type":"api_keys_changed"}""");
        await using (var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct))
            (await db.ApiKeys.Select(row => row.Id).ToListAsync(Ct)).ShouldBe([id]);

        time.Advance(TimeSpan.FromHours(1));
        await host.Services.GetRequiredService<ApiKeyService>().SweepAsync(Ct);
        (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.Unauthorized);
        (await host.Client.StatusAsync(Models, null)).ShouldBe(HttpStatusCode.Unauthorized);
        (await host.Client.JsonAsync("/api/api-keys")).EnumerateArray().Select(read => read.Id()).ShouldBe([id]);
        await host.Client.KeysAsync("DELETE", $"/{id}").ShouldBeRefusedAsync(HttpStatusCode.Conflict, "api_key.last_permanent");
        await host.Client.PatchKeyAsync(id, """{"expires_at": null}""");
        (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK);
    }

    [Fact]
    public async Task A_request_that_is_given_up_leaves_either_no_change_or_one_that_counts()
    {
        await using var host = await StartAsync();
        var keys = host.Services.GetRequiredService<ApiKeyService>();
        await host.Client.MakeKeyAsync();
        for (var i = 0; i < 100; i++)
        {
            var (key, id, _) = await host.Client.MakeKeyAsync();
            using var leaving = new CancellationTokenSource();
            var deleting = keys.DeleteAsync(id, mayOpen: false, leaving.Token);
            await leaving.CancelAsync();
            var isDeleted = await deleting.ContinueWith(task => task.IsCompletedSuccessfully, Ct, TaskContinuationOptions.None, TaskScheduler.Default);
            await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);

            (await db.ApiKeys.AnyAsync(row => row.Id == id, Ct)).ShouldBe(!isDeleted);
            (await host.Client.StatusAsync(Models, key)).ShouldBe(isDeleted ? HttpStatusCode.Unauthorized : HttpStatusCode.OK);
        }
    }

    [Fact]
    public async Task Checking_a_key_and_routing_in_its_scope_makes_no_garbage()
    {
        await using var host = await StartAsync();
        for (var i = 0; i < 20; i++)
            await host.Client.MakeKeyAsync();
        var (key, _, _) = await host.Client.MakeKeyAsync("""{"label": "a", "models": ["m"]}""");
        var (ring, now) = (host.Services.GetRequiredService<ApiKeyRing>(), TimeProvider.System.GetUtcNow());
        var table = new RouteTable([new ModelRoute(1, DeploymentStatus.Running, null, "m", [], "tests", now, new Uri("http://127.0.0.1:1"), null)]);
        long Garbage(int times)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < times; i++)
            {
                var known = ring.Find(key, now)!;
                known.LastUse.Note(now);
                table.Find("m", known.Feature.Scope).Route.ShouldNotBeNull();
                ring.Find("sk-anything", now);
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        Garbage(100);

        Garbage(10_000).ShouldBeLessThan(10_000);
    }

    private static Task<ControlPlane> StartAsync(TimeProvider? time = null) => ControlPlane.StartAsync(configure: services =>
    {
        ScriptedNode.WithoutLocalNode(services);
        if (time is null)
            return;
        services.AddSingleton(time);
        // what is done each minute is left to the test
        services.Remove(services.Single(service => service.ImplementationType == typeof(ApiKeyUse)));
    });

    private static string[] Words(JsonElement element, string name) => [.. element.GetProperty(name).EnumerateArray().Select(word => word.GetString()!)];

    private static async Task<byte[]> ReadAsync(string file)
    {
        await using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using var bytes = new MemoryStream();
        await stream.CopyToAsync(bytes, Ct);
        return bytes.ToArray();
    }
}
