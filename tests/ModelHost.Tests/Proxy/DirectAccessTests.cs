using System.Net;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Cluster;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.Proxy;

/// <summary>Who may use the public port of a deployment.</summary>
public sealed class DirectAccessTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Keys_open_it_as_they_open_the_gateway()
    {
        var clock = new MovedClock();
        await using var node = await DirectNode.StartAsync(time: clock);
        await node.BecomesAsync(HttpStatusCode.OK);
        using (var foreign = await node.ChatAsync(headers: ("X-Forwarded-For", "203.0.113.9")))
            await foreign.ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
        using (var page = await node.ChatAsync(headers: ("Origin", "https://attacker.example")))
            await page.ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
        using (var rebound = await node.ChatAsync(headers: ("Host", "attacker.example")))
            await rebound.ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");

        var client = node.Host.Client;
        var (all, allId, _) = await client.MakeKeyAsync();
        var (own, _, _) = await client.MakeKeyAsync($$"""{"label":"own","deployment_ids":[{{node.Id}}]}""");
        var (byName, _, _) = await client.MakeKeyAsync("""{"label":"name","models":["demo/tiny-chat"]}""");
        var (elsewhere, _, _) = await client.MakeKeyAsync("""{"label":"other","deployment_ids":[]}""");
        var (otherModel, _, _) = await client.MakeKeyAsync("""{"label":"other","models":["somebody"]}""");
        var (metrics, _, _) = await client.MakeKeyAsync("""{"label":"metrics","roles":["metrics"]}""");
        var (ending, _, _) = await client.MakeKeyAsync($$"""{"label":"ending","ttl_seconds":60,"deployment_ids":[{{node.Id}}]}""");
        await node.BecomesAsync(HttpStatusCode.Unauthorized);
        await node.BecomesAsync(HttpStatusCode.OK, ending);

        using (var none = await node.ChatAsync())
        {
            await none.ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
            none.Headers.WwwAuthenticate.ToString().ShouldBe("Bearer");
        }
        foreach (var good in (string[])[all, own, byName])
            (await node.ChatAsync(good)).StatusCode.ShouldBe(HttpStatusCode.OK);
        (await node.ChatAsync(headers: ("X-Api-Key", own))).StatusCode.ShouldBe(HttpStatusCode.OK);
        foreach (var wrong in (string[])["sk-anything", node.Host.AdminKey, all[..^1] + (all[^1] == '0' ? '1' : '0'), ""])
            await (await node.ChatAsync(headers: ("Authorization", $"Bearer {wrong}"))).ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
        foreach (var foreign in (string[])[elsewhere, otherModel])
            await (await node.ChatAsync(foreign)).ShouldBeOpenAiErrorAsync(HttpStatusCode.Forbidden, "model_forbidden", "model");
        await (await node.ChatAsync(metrics)).ShouldBeOpenAiErrorAsync(HttpStatusCode.Forbidden, "role_forbidden");

        clock.By = TimeSpan.FromMinutes(2);
        await (await node.ChatAsync(ending)).ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
        (await client.KeysAsync("DELETE", $"/{allId}")).StatusCode.ShouldBe(HttpStatusCode.NoContent);
        await node.BecomesAsync(HttpStatusCode.Unauthorized, all);
        (await node.ChatAsync(own)).StatusCode.ShouldBe(HttpStatusCode.OK);
        await client.StopModelAsync(node.Id);
    }

    [Fact]
    public async Task Beyond_loopback_it_needs_the_admin_key_until_there_is_a_permanent_one()
    {
        await using var node = await DirectNode.StartAsync(listen: "0.0.0.0");

        await node.BecomesAsync(HttpStatusCode.OK, node.Host.AdminKey);

        await (await node.ChatAsync()).ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
        await (await node.ChatAsync("sk-anything")).ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
        await node.Host.Client.StopModelAsync(node.Id);
    }

    [Fact]
    public async Task An_open_one_asks_for_nothing()
    {
        await using var node = await DirectNode.StartAsync(listen: "0.0.0.0", configuration: "Node:DirectAccess=open");
        await node.Host.Client.MakeKeyAsync();

        await node.BecomesAsync(HttpStatusCode.OK);

        (await node.ChatAsync("sk-anything")).StatusCode.ShouldBe(HttpStatusCode.OK);
        await node.Host.Client.StopModelAsync(node.Id);
    }

    [Fact]
    public async Task A_key_for_the_model_alone_does_not_open_its_adapters()
    {
        await using var node = await DirectNode.StartAsync(change: request => request["lora_modules"] =
            new System.Text.Json.Nodes.JsonArray(new System.Text.Json.Nodes.JsonObject { ["name"] = "sql", ["path"] = "org/sql" }));
        var (model, _, _) = await node.Host.Client.MakeKeyAsync("""{"label":"a","models":["demo/tiny-chat"]}""");
        var (both, _, _) = await node.Host.Client.MakeKeyAsync("""{"label":"a","models":["demo/tiny-chat","sql"]}""");

        await node.BecomesAsync(HttpStatusCode.Unauthorized);
        await node.BecomesAsync(HttpStatusCode.OK, both);

        await (await node.ChatAsync(model)).ShouldBeOpenAiErrorAsync(HttpStatusCode.Forbidden, "model_forbidden", "model");
        await node.Host.Client.StopModelAsync(node.Id);
    }

    [Fact]
    public async Task A_node_that_is_alone_and_was_restarted_knows_the_keys()
    {
        using var surroundings = new TestNode { DirectListen = "127.0.0.1" };
        var port = TestPorts.Free();
        var file = Path.Combine(surroundings.Data, "keys", "direct-access");
        using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{port}") };
        string good, revoked;
        await using (var cluster = await TestCluster.StartAsync())
        {
            await using var agent = await cluster.AgentAsync(node: surroundings);
            var id = await cluster.Host.Client.StartModelAsync(Api.StartRequest(await cluster.StatusAsync("gpu-1", "online"), port));
            await cluster.Host.Client.StatusAsync(id, "running");
            (good, _, _) = await cluster.Host.Client.MakeKeyAsync();
            (revoked, var revokedId, _) = await cluster.Host.Client.MakeKeyAsync();
            await StatusAsync(client, revoked, HttpStatusCode.OK);
            await cluster.Host.Client.KeysAsync("DELETE", $"/{revokedId}");
            await StatusAsync(client, revoked, HttpStatusCode.Unauthorized);
            // it acts at once, and is written down then
            await Deadline.UntilAsync(async () => AccessRequest.Parser.ParseFrom(await File.ReadAllBytesAsync(file, Ct)).Keys.Count, keys => keys == 1, what: "the revocation to be kept");
        }
        await Should.ThrowAsync<HttpRequestException>(() => client.GetAsync(new Uri("/v1/models", UriKind.Relative), Ct));

        await using var alone = await NodeAgent.StartAsync(null, null, surroundings);

        // at once: its engine need not be found first
        (await DirectNode.ChatAsync(client, good)).StatusCode.ShouldBe(HttpStatusCode.OK);
        (await DirectNode.ChatAsync(client, revoked)).StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        (await DirectNode.ChatAsync(client)).StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        File.GetUnixFileMode(file).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
        System.Text.Encoding.Latin1.GetString(await File.ReadAllBytesAsync(file, Ct)).ShouldNotContain(good[6..]);
    }

    [Theory]
    [InlineData("")]
    [InlineData("none of ours")]
    public async Task A_file_that_is_none_lets_nobody_in(string content)
    {
        using var surroundings = new TestNode { DirectListen = "127.0.0.1" };
        Directory.CreateDirectory(Path.Combine(surroundings.Data, "keys"));
        await File.WriteAllTextAsync(Path.Combine(surroundings.Data, "keys", "direct-access"), content, Ct);
        await using var proxy = new ProxyAlone(surroundings, Agent.DirectAccessMode.Keys);
        await proxy.ServeAsync(Agent.Proxy.DirectState.Ready);

        await (await DirectNode.ChatAsync(proxy.Client)).ShouldBeOpenAiErrorAsync(HttpStatusCode.Unauthorized, "invalid_api_key");
        proxy.Asked.ShouldBe(0);
    }

    private static Task<HttpStatusCode> StatusAsync(HttpClient client, string key, HttpStatusCode status) => Deadline.UntilAsync(async () =>
    {
        using var answer = await DirectNode.ChatAsync(client, key);
        return answer.StatusCode;
    }, found => found == status);
}
