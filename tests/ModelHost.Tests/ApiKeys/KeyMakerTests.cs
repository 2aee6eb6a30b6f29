using System.Net;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core;
using ModelHost.Core.Access;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Features.ApiKeys;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.ApiKeys;

/// <summary>Keys that make keys: never more than the maker has, whatever is done in whatever order.</summary>
public sealed class KeyMakerTests
{
    private const string Models = "/v1/models";
    private static readonly string[] Names = ["a", "b", "c"];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_key_makes_temporary_keys_that_are_as_limited_as_itself()
    {
        await using var host = await StartAsync();
        var node = await QuietNode.AddAsync(host);
        var (one, two) = (await host.Client.RecordAsync(node.Id, 8101, "one"), await host.Client.RecordAsync(node.Id, 8102, "two"));
        var soon = TimeProvider.System.GetUtcNow().AddMinutes(10);
        var (maker, makerId, _) = await host.Client.MakeKeyAsync(
            $$"""{"label": "maker", "deployment_ids": [{{one}}], "models": ["a", "b"], "expires_at": "{{soon.ToString("O", System.Globalization.CultureInfo.InvariantCulture)}}"}""");

        var (key, _, plain) = await host.Client.MakeKeyAsync("""{"label": "child", "ttl_seconds": 3600}""", maker);
        var (_, _, narrow) = await host.Client.MakeKeyAsync($$"""{"label": "child", "ttl_seconds": 60, "deployment_ids": [], "models": ["b"]}""", maker);

        plain.GetProperty("made_by").GetInt32().ShouldBe(makerId);
        plain.GetProperty("allowed_deployment_ids").GetRawText().ShouldBe($"[{one}]");
        plain.GetProperty("allowed_models").GetRawText().ShouldBe("""["a","b"]""");
        plain.GetProperty("expires_at").GetDateTimeOffset().ShouldBe(soon, TimeSpan.FromMilliseconds(1));
        (narrow.GetProperty("allowed_deployment_ids").GetRawText(), narrow.GetProperty("allowed_models").GetRawText()).ShouldBe(("[]", """["b"]"""));
        (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.OK);
        foreach (var (more, field) in ((string, string)[])
            [
                ($$"""
                  "deployment_ids": [{{two}}]
                  """, "deployment_ids"),
                ($$"""
                  "deployment_ids": [{{one}}, {{two}}]
                  """, "deployment_ids"),
                ("\"deployment_ids\": [4711]", "deployment_ids"), ("\"models\": [\"a\", \"c\"]", "models"), ("\"roles\": [\"metrics\"]", "roles"), ("\"roles\": [\"inference\", \"metrics\"]", "roles"),
            ])
            await host.Client.KeysAsync("POST", "", $$"""{"label": "more", "ttl_seconds": 60, {{more}}}""", maker).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "api_key.exceeds_maker", field);
        await host.Client.KeysAsync("POST", "", """{"label": "permanent"}""", maker).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "api_key.exceeds_maker", "ttl_seconds");
        (await host.Client.JsonAsync("/api/api-keys")).GetArrayLength().ShouldBe(3);
    }

    [Fact]
    public async Task Whether_a_deployment_exists_is_not_told_to_a_key_without_it()
    {
        await using var host = await StartAsync();
        var node = await QuietNode.AddAsync(host);
        var other = await host.Client.RecordAsync(node.Id, 8101, "one");
        var (maker, _, _) = await host.Client.MakeKeyAsync("""{"label": "maker", "deployment_ids": []}""");
        async Task<string> DetailAsync(int id) => (await host.Client.KeysAsync("POST", "", $$"""{"label": "a", "ttl_seconds": 60, "deployment_ids": [{{id}}]}""", maker)
            .ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "api_key.exceeds_maker", "deployment_ids")).Replace($"{id}", "ID", StringComparison.Ordinal);

        (await DetailAsync(other)).ShouldBe(await DetailAsync(4711));
    }

    [Fact]
    public async Task A_key_does_nothing_else_with_keys()
    {
        await using var host = await StartAsync();
        var (maker, id, _) = await host.Client.MakeKeyAsync("""{"label": "maker", "models": ["a"], "roles": ["inference", "metrics"]}""");
        var (temporary, _, _) = await host.Client.MakeKeyAsync("""{"label": "child", "ttl_seconds": 60}""", maker);

        await host.Client.KeysAsync("POST", "", """{"label": "a", "ttl_seconds": 60}""", temporary).ShouldBeRefusedAsync(HttpStatusCode.Forbidden, "access.role_needed");
        await host.Client.KeysAsync("POST", "", """{"label": "a", "ttl_seconds": 60}""", "wrong").ShouldBeRefusedAsync(HttpStatusCode.Unauthorized, "access.key_needed");
        foreach (var key in (string[])[maker, temporary])
        {
            await host.Client.KeysAsync("GET", "", null, key).ShouldBeRefusedAsync(HttpStatusCode.Unauthorized, "access.key_needed");
            await host.Client.KeysAsync("PATCH", $"/{id}", """{"models": null}""", key).ShouldBeRefusedAsync(HttpStatusCode.Unauthorized, "access.key_needed");
            await host.Client.KeysAsync("DELETE", $"/{id}", null, key).ShouldBeRefusedAsync(HttpStatusCode.Unauthorized, "access.key_needed");
        }
    }

    [Fact]
    public async Task What_a_key_made_follows_it()
    {
        await using var host = await StartAsync();
        await host.Client.MakeKeyAsync();
        var (maker, makerId, _) = await host.Client.MakeKeyAsync("""{"label": "maker", "models": ["a", "b"], "roles": ["inference", "metrics"]}""");
        var (key, id, _) = await host.Client.MakeKeyAsync("""{"label": "child", "ttl_seconds": 3600, "roles": ["inference", "metrics"]}""", maker);
        async Task<JsonElement> ReadAsync() => (await host.Client.JsonAsync("/api/api-keys")).EnumerateArray().Single(read => read.Id() == id);

        await host.Client.PatchKeyAsync(makerId, """{"models": ["b", "c"], "roles": ["metrics"]}""");
        var narrowed = await ReadAsync();
        (narrowed.GetProperty("allowed_models").GetRawText(), narrowed.GetProperty("roles").GetRawText()).ShouldBe(("""["b"]""", """["metrics"]"""));
        (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.Forbidden);
        await host.Client.PatchKeyAsync(makerId, """{"models": null, "roles": ["inference"]}""");
        var widened = await ReadAsync();
        (widened.GetProperty("allowed_models").GetRawText(), widened.GetProperty("roles").GetRawText()).ShouldBe(("""["a","b"]""", """["inference"]"""), "never more than it was made with");

        (await host.Client.KeysAsync("DELETE", $"/{makerId}")).StatusCode.ShouldBe(HttpStatusCode.NoContent);
        (await host.Client.StatusAsync(Models, key)).ShouldBe(HttpStatusCode.Unauthorized);
        (await host.Client.JsonAsync("/api/api-keys")).GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task Keys_that_one_key_makes_are_bounded()
    {
        await using var host = await StartAsync();
        var (maker, makerId, _) = await host.Client.MakeKeyAsync("""{"label": "maker", "models": ["a"]}""");
        var keys = host.Services.GetRequiredService<ApiKeyService>();
        for (var i = 0; i < ApiKeyService.MaxPerMaker; i++)
            (await keys.CreateAsync(new CreateApiKeyRequest { Label = "child", TtlSeconds = 3600 }, makerId, Ct)).Failure.ShouldBeNull();

        await host.Client.KeysAsync("POST", "", """{"label": "child", "ttl_seconds": 60}""", maker).ShouldBeRefusedAsync(HttpStatusCode.Conflict, "api_key.too_many");
        await host.Client.MakeKeyAsync("""{"label": "of the administrator", "ttl_seconds": 60, "models": ["a"]}""");
    }

    [Fact]
    public void What_is_left_of_a_grant_is_within_both()
    {
        var random = new Random(11);
        for (var i = 0; i < 100_000; i++)
        {
            var (own, maker, third) = (RandomGrant(random), RandomGrant(random), RandomGrant(random));

            var left = own.LimitedTo(maker);

            left.IsWithin(own).ShouldBeTrue();
            left.IsWithin(maker).ShouldBeTrue();
            own.IsWithin(own).ShouldBeTrue();
            // and nothing is lost that both have
            if (third.IsWithin(own) && third.IsWithin(maker))
                third.IsWithin(left).ShouldBeTrue();
            // "within" is no mere word: whatever the inner one reaches, the outer one does
            if (own.IsWithin(maker))
            {
                foreach (var (route, name) in Reachable(own.Scope))
                    maker.Scope.Allows(route, name).ShouldBeTrue();
            }
        }
    }

    /// <summary>Random operations by an administrator and by keys, while time passes; after each one everything is looked at.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task No_sequence_of_operations_gives_a_key_more_than_its_maker_has(int seed)
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var node = await QuietNode.AddAsync(host);
        var ids = new List<int>();
        for (var i = 0; i < 3; i++)
            ids.Add(await host.Client.RecordAsync(node.Id, 8101 + i, Names[i]));
        var (keys, ring, random, texts) = (host.Services.GetRequiredService<ApiKeyService>(), host.Services.GetRequiredService<ApiKeyRing>(), new Random(seed), new Dictionary<int, string>());
        // what each key was made with: no operation on others may widen it
        var made = new Dictionary<int, KeyGrant>();
        var (children, refused) = (0, 0);
        T? Maybe<T>(Func<T> make) => random.Next(2) == 0 ? make() : default;
        List<int> SomeIds() => [.. ids.Where(_ => random.Next(2) == 0)];
        List<string> SomeNames() => [.. Names.Where(_ => random.Next(2) == 0)];
        List<string> SomeRoles() => random.Next(3) switch { 0 => ["inference"], 1 => ["metrics"], _ => ["inference", "metrics"] };
        int? SomeKey() => ring.Keys.Count == 0 ? null : ring.Keys.Keys.ElementAt(random.Next(ring.Keys.Count));
        for (var step = 0; step < 600; step++)
        {
            var makers = ring.Keys;
            switch (random.Next(10))
            {
                case 0 or 1:
                    Take(await keys.CreateAsync(new CreateApiKeyRequest { Label = "a", DeploymentIds = Maybe(SomeIds), Models = Maybe(SomeNames), Roles = Maybe(SomeRoles), ExpiresAt = random.Next(3) == 0 ? Later() : null }, null, Ct));
                    break;
                case 2 or 3 or 4 or 5 when SomeKey() is { } maker:
                    // as the route does it: only a permanent key that has not ended gets there
                    if (ring.Keys[maker].Row.IsTemporary)
                        break;
                    var child = await keys.CreateAsync(new CreateApiKeyRequest { Label = "c", TtlSeconds = random.Next(1, 3600), DeploymentIds = Maybe(SomeIds), Models = Maybe(SomeNames), Roles = Maybe(SomeRoles) }, maker, Ct);
                    Take(child);
                    if (child.TryGet(out var born, out _))
                    {
                        children++;
                        ring.Keys[born.Id].Grant.IsWithin(makers[maker].Grant).ShouldBeTrue("as it was made");
                    }
                    else
                        refused++;
                    break;
                case 6 or 7 when SomeKey() is { } changed:
                    await keys.UpdateAsync(changed, JsonSerializer.Deserialize<UpdateApiKeyRequest>(Change(), Json)!, Ct);
                    break;
                case 8 when SomeKey() is { } revoked:
                    await keys.DeleteAsync(revoked, mayOpen: true, Ct);
                    break;
                case 9:
                    time.Advance(TimeSpan.FromSeconds(random.Next(600)));
                    if (random.Next(2) == 0)
                        await keys.SweepAsync(Ct);
                    break;
            }
            var now = time.GetUtcNow();
            foreach (var (id, key) in ring.Keys)
            {
                if (key.Row.MakerId is not { } makerId)
                    continue;
                ring.Keys.ShouldContainKey(makerId);
                key.Grant.IsWithin(ring.Keys[makerId].Grant).ShouldBeTrue();
                key.Grant.IsWithin(made[id]).ShouldBeTrue();
                key.Feature.Scope.IsWithin(ring.Keys[makerId].Feature.Scope).ShouldBeTrue();
                (key.Row.IsTemporary && !ring.Keys[makerId].Row.IsTemporary).ShouldBeTrue();
            }
            foreach (var (id, text) in texts)
            {
                var found = ring.Find(text, now);
                (found is not null).ShouldBe(ring.Keys.TryGetValue(id, out var known) && !known.Grant.HasEnded(now));
                if (found?.Row.MakerId is { } makerId)
                    ring.Find(texts[makerId], now).ShouldNotBeNull("a maker that is not let in has no keys that are");
            }
        }
        children.ShouldBeGreaterThan(10);
        refused.ShouldBeGreaterThan(10);

        void Take(Result<ApiKeyCreated> result)
        {
            if (!result.TryGet(out var key, out _))
                return;
            texts[key.Id] = key.Key;
            made[key.Id] = ring.Keys[key.Id].Grant;
        }
        DateTimeOffset Later() => time.GetUtcNow().AddSeconds(random.Next(1, 7200));
        string Change()
        {
            var fields = new Dictionary<string, object?>();
            if (random.Next(2) == 0)
                fields["deployment_ids"] = Maybe(SomeIds);
            if (random.Next(2) == 0)
                fields["models"] = Maybe(SomeNames);
            if (random.Next(2) == 0)
                fields["roles"] = SomeRoles();
            if (random.Next(3) == 0)
                fields["expires_at"] = random.Next(2) == 0 ? Later() : null;
            return JsonSerializer.Serialize(fields);
        }
    }

    private static readonly JsonSerializerOptions Json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    private static KeyGrant RandomGrant(Random random) => new(
        (KeyRoles)random.Next(4),
        RouteScope.Of(random.Next(3) == 0 ? null : Names.Where(_ => random.Next(2) == 0), random.Next(3) == 0 ? null : Names.Where(_ => random.Next(2) == 0)),
        random.Next(3) == 0 ? null : DateTimeOffset.UnixEpoch.AddSeconds(random.Next(4)));

    private static IEnumerable<(ModelRoute Route, string Name)> Reachable(RouteScope scope) =>
        from uid in Names
        from served in (string?[])[null, .. Names]
        from model in Names
        let route = new ModelRoute(1, DeploymentStatus.Running, served, model, Names, "tests", DateTimeOffset.UnixEpoch, null, null) { DeploymentUid = uid }
        from name in Names
        where scope.Allows(route, name)
        select (route, name);

    private static Task<ControlPlane> StartAsync(TimeProvider? time = null) => ControlPlane.StartAsync(configure: services =>
    {
        ScriptedNode.WithoutLocalNode(services);
        if (time is null)
            return;
        services.AddSingleton(time);
        // what is done each minute is left to the test
        services.Remove(services.Single(service => service.ImplementationType == typeof(ApiKeyUse)));
    });
}
