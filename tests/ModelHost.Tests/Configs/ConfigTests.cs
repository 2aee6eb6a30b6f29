using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.TestKit;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Configs;

public sealed class ConfigTests
{
    private const string Mask = "********";
    private const string Canary = "canary-77c1";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("/api/configs")]
    [InlineData("/api/configs/")]
    public async Task Saved_ones_are_listed_by_name_and_deleted(string path)
    {
        await using var host = await StartAsync();
        var payload = JsonNode.Parse("""{"model_name":"org/m","port":8100,"advanced_args":[{"key":"a","value":"b"}],"raw_args":"--x","nested":{"deep":[1,2.5,null,true]},"env_vars":[]}""")!;
        var (second, first) = (await CreateAsync(host, "b", payload, path), await CreateAsync(host, "a", payload, path));

        var list = await host.Client.JsonAsync(path);

        list.EnumerateArray().Select(config => config.GetProperty("name").GetString()).ShouldBe(["a", "b"]);
        list[0].EnumerateObject().Select(property => property.Name).ShouldBe(["id", "name", "payload", "created_at"]);
        JsonElement.DeepEquals(list[0].GetProperty("payload"), JsonSerializer.SerializeToElement(payload)).ShouldBeTrue(list.ToString());
        using var deleted = await host.Client.DeleteAsync(new Uri($"/api/configs/{first}", UriKind.Relative), Ct);
        (await deleted.Content.ReadAsStringAsync(Ct)).ShouldBe("""{"status":"deleted"}""");
        (await host.Client.JsonAsync(path)).EnumerateArray().ShouldHaveSingleItem().GetProperty("id").GetInt32().ShouldBe(second);
        await ShouldBeProblemAsync(await host.Client.DeleteAsync(new Uri($"/api/configs/{first}", UriKind.Relative), Ct), HttpStatusCode.NotFound, "config.not_found");
    }

    [Fact]
    public async Task A_name_is_taken_once_also_at_the_same_moment()
    {
        await using var host = await StartAsync();

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => PostAsync(host, """{"name":"n","payload":{}}""")));

        answers.Count(answer => answer.StatusCode == HttpStatusCode.OK).ShouldBe(1);
        foreach (var refused in answers.Where(answer => answer.StatusCode != HttpStatusCode.OK))
            await ShouldBeProblemAsync(refused, HttpStatusCode.Conflict, "config.name_taken");
        (await host.Client.JsonAsync("/api/configs")).GetArrayLength().ShouldBe(1);
    }

    [Theory]
    [InlineData("""[{"key":"HF_TOKEN","value":"canary-77c1"},{"key":"EMPTY","value":""},{"key":"N","value":null}]""", """[{"key":"HF_TOKEN","value":"********"},{"key":"EMPTY","value":"********"},{"key":"N","value":null}]""")]
    [InlineData("""[{"name":"A","value":"canary-77c1","more":{"x":"canary-77c1"}}]""", """[{"name":"A","value":"********","more":"********"}]""")]
    [InlineData("""[{"value":"canary-77c1"},"B=canary-77c1",["canary-77c1"]]""", """[{"value":"********"},"********","********"]""")]
    [InlineData("""{"HF_TOKEN":"canary-77c1","N":7}""", """{"HF_TOKEN":"********","N":"********"}""")]
    [InlineData("\"HF_TOKEN=canary-77c1\"", "\"********\"")]
    [InlineData("[]", "[]")]
    [InlineData("null", "null")]
    public async Task Values_of_variables_are_masked_in_every_form_and_everywhere(string given, string shown)
    {
        using var node = new TestNode();
        using var lines = new LogLines();
        await using (var host = await ControlPlane.StartAsync(node, configure: services =>
        {
            ScriptedNode.WithoutLocalNode(services);
            services.AddSingleton<ILoggerProvider>(lines);
        }))
        {
            var body = $$$"""{"name":"n","payload":{"env_vars":{{{given}}},"from":{"manifest":[{"Env_Vars":{{{given}}}}]},"canary":1}}""";
            var expected = JsonDocument.Parse($$"""{"env_vars":{{shown}},"from":{"manifest":[{"Env_Vars":{{shown}}}]},"canary":1}""").RootElement;

            using var created = await PostAsync(host, body);
            var answer = await created.Content.ReadFromJsonAsync<JsonElement>(Ct);
            var listed = await host.Client.JsonAsync("/api/configs");
            using var again = await PostAsync(host, body);

            JsonElement.DeepEquals(answer.GetProperty("payload"), expected).ShouldBeTrue(answer.ToString());
            JsonElement.DeepEquals(listed[0].GetProperty("payload"), expected).ShouldBeTrue(listed.ToString());
            (await again.Content.ReadAsStringAsync(Ct)).ShouldNotContain(Canary);
        }
        lines.All.ShouldAllBe(line => !line.Contains(Canary, StringComparison.Ordinal));
        foreach (var file in Directory.GetFiles(node.Data, "*", SearchOption.AllDirectories))
            (await File.ReadAllTextAsync(file, Encoding.Latin1, Ct)).Contains(Canary, StringComparison.Ordinal).ShouldBeFalse(file);
    }

    [Fact]
    public async Task A_mask_that_comes_back_keeps_the_stored_value()
    {
        await using var host = await StartAsync();
        var id = await CreateAsync(host, "n", JsonNode.Parse("""{"env_vars":[{"key":"A","value":"one"},{"key":"B","value":"two"},{"key":"A","value":"three"},{"key":"C","value":"four"}]}""")!);

        using var answer = await PutAsync(host, id, $$$"""{"name":"renamed","payload":{"port":1,"env_vars":[{"key":"B","value":"{{{Mask}}}"},{"key":"A","value":"{{{Mask}}}"},{"key":"A","value":"new"},{"key":"D","value":"five"}]}}""");

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        ((string[])["one", "two", "three", "four", "five", "new"]).ShouldAllBe(value => !text.Contains($"\"{value}\"", StringComparison.Ordinal));
        (await host.Client.JsonAsync("/api/configs"))[0].GetProperty("name").GetString().ShouldBe("renamed");
        (await StoredAsync(host, id)).Values.ShouldBe(["\"two\"", "\"one\"", "\"new\"", "\"five\""], ignoreOrder: true);
    }

    [Fact]
    public async Task A_mask_that_stands_for_nothing_is_refused_and_nothing_is_changed()
    {
        await using var host = await StartAsync();
        var id = await CreateAsync(host, "n", JsonNode.Parse("""{"env_vars":[{"key":"A","value":"one"}]}""")!);

        using var put = await PutAsync(host, id, $$$"""{"name":"n","payload":{"env_vars":[{"key":"B","value":"{{{Mask}}}"}]}}""");
        using var post = await PostAsync(host, $$$$"""{"name":"m","payload":{"env_vars":{"A":"{{{{Mask}}}}"}}}""");

        (await ShouldBeProblemAsync(put, HttpStatusCode.BadRequest, "validation", "payload")).ShouldContain("env_vars/B");
        (await ShouldBeProblemAsync(post, HttpStatusCode.BadRequest, "validation", "payload")).ShouldContain("env_vars/A");
        (await StoredAsync(host, id)).Values.ShouldBe(["\"one\""]);
        (await host.Client.JsonAsync("/api/configs")).GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task Replacing_is_refused_for_what_is_not_there_and_for_a_taken_name()
    {
        await using var host = await StartAsync();
        await CreateAsync(host, "a", new JsonObject());
        var id = await CreateAsync(host, "b", new JsonObject());

        await ShouldBeProblemAsync(await PutAsync(host, id, """{"name":"a","payload":{}}"""), HttpStatusCode.Conflict, "config.name_taken");
        await ShouldBeProblemAsync(await PutAsync(host, 987, """{"name":"c","payload":{}}"""), HttpStatusCode.NotFound, "config.not_found");
    }

    public static TheoryData<string, string> Faults => new()
    {
        { """{"payload":{}}""", "name" },
        { """{"name":"","payload":{}}""", "name" },
        { """{"name":null,"payload":{}}""", "name" },
        { """{"name":"  ","payload":{}}""", "name" },
        { """{"name":"a\u0000","payload":{}}""", "name" },
        { $$$"""{"name":"{{{new string('x', 256)}}}","payload":{}}""", "name" },
        { """{"name":"\ud800","payload":{}}""", "name" },
        { """{"name":"n"}""", "payload" },
        { """{"name":"n","payload":null}""", "payload" },
        { """{"name":"n","payload":[]}""", "payload" },
        { """{"name":"n","payload":"x"}""", "payload" },
        { """{"name":"n","payload":{"a":1,"a":2}}""", "payload" },
        { """{"name":"n","payload":{"env_vars":[{"key":"A","value":"x"}],"env_vars":[]}}""", "payload" },
        { """{"name":"n","payload":{"\ud800":1}}""", "payload" },
        { """{"name":"n","payload":{"env_vars":[{"key":"\ud800","value":"x"}]}}""", "payload" },
        { """{"name":"n","payload":{"env_vars":[{"key":"A","value":"\ud800"}]}}""", "payload" },
        { """{"name":"n","payload":{"x":"\ud800"}}""", "payload" },
        { $$$$"""{"name":"n","payload":{"x":{{{{new string('[', 32)}}}}{{{{new string(']', 32)}}}}}}""", "payload" },
        { $$$"""{"name":"n","payload":{"x":"{{{new string('x', 256 * 1024)}}}"}}""", "payload" },
    };

    [Theory]
    [MemberData(nameof(Faults))]
    public async Task A_field_at_fault_is_named(string body, string field)
    {
        await using var host = await StartAsync();

        await ShouldBeProblemAsync(await PostAsync(host, body), HttpStatusCode.BadRequest, "validation", field);

        (await host.Client.JsonAsync("/api/configs")).GetArrayLength().ShouldBe(0);
    }

    [Fact]
    public async Task A_payload_of_the_largest_size_and_depth_comes_back_whole()
    {
        await using var host = await StartAsync();
        var payload = $$"""{"a":"{{new string('é', 200 * 1024)}}","x":{{new string('[', 31)}}{{new string(']', 31)}}}""";

        (await PostAsync(host, $$"""{"name":"n","payload":{{payload}}}""")).EnsureSuccessStatusCode();

        JsonElement.DeepEquals((await host.Client.JsonAsync("/api/configs"))[0].GetProperty("payload"), JsonDocument.Parse(payload).RootElement).ShouldBeTrue();
    }

    [Fact]
    public async Task What_was_stored_with_lost_keys_can_be_read_deleted_and_given_anew()
    {
        using var node = new TestNode();
        int id;
        await using (var host = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode))
            id = await CreateAsync(host, "n", JsonNode.Parse("""{"env_vars":[{"key":"HF_TOKEN","value":"canary-77c1"}]}""")!);
        node.LoseKeys();
        await using var second = await ControlPlane.StartAsync(node, configure: ScriptedNode.WithoutLocalNode);
        Task<HttpResponseMessage> ReplaceAsync(string value) => PutAsync(second, id, $$$"""{"name":"n","payload":{"env_vars":[{"key":"HF_TOKEN","value":"{{{value}}}"}]}}""");

        var shown = (await second.Client.JsonAsync("/api/configs"))[0].GetProperty("payload").ToString();
        (await ShouldBeProblemAsync(await ReplaceAsync(Mask), HttpStatusCode.BadRequest, "validation", "payload")).ShouldContain("where no value is stored");
        using var replaced = await ReplaceAsync("another");

        shown.ShouldContain(Mask);
        replaced.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await StoredAsync(second, id)).Values.ShouldBe(["\"another\""]);
    }

    private static Task<ControlPlane> StartAsync() => ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);

    private static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    private static Task<HttpResponseMessage> PostAsync(ControlPlane host, string body, string path = "/api/configs") =>
        host.Client.PostAsync(new Uri(path, UriKind.Relative), Json(body), Ct);

    private static Task<HttpResponseMessage> PutAsync(ControlPlane host, int id, string body) =>
        host.Client.PutAsync(new Uri($"/api/configs/{id}", UriKind.Relative), Json(body), Ct);

    private static async Task<int> CreateAsync(ControlPlane host, string name, JsonNode payload, string path = "/api/configs")
    {
        using var answer = await PostAsync(host, new JsonObject { ["name"] = name, ["payload"] = payload.DeepClone() }.ToJsonString(), path);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK, await answer.Content.ReadAsStringAsync(Ct));
        return (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("id").GetInt32();
    }

    private static async Task<Dictionary<string, string>> StoredAsync(ControlPlane host, int id)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return host.Services.GetRequiredService<EnvironmentVault>().Open((await db.Configs.SingleAsync(config => config.Id == id, Ct)).EnvValues)!;
    }

    private static async Task<string> ShouldBeProblemAsync(HttpResponseMessage answer, HttpStatusCode status, string code, string? field = null)
    {
        var problem = await answer.Content.ReadFromJsonAsync<JsonElement>(Ct);
        answer.StatusCode.ShouldBe(status, problem.ToString());
        problem.GetProperty("code").GetString().ShouldBe(code);
        if (field is not null)
            problem.GetProperty("errors").EnumerateObject().Select(error => error.Name).ShouldBe([field], problem.ToString());
        return problem.GetProperty("detail").GetString()!;
    }
}
