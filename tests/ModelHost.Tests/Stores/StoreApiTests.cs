using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.Tests.Stores;

/// <summary>The routes as LocalAI's clients see them, to the letter.</summary>
public sealed class StoreApiTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Answers_are_those_of_LocalAI()
    {
        await using var host = await ControlPlane.StartAsync();

        (await host.SendAsync("set", """{"keys":[[0.3,0.4,0.5],[0.1,0.2,0.3],[-1,2.5e-3,0]],"values":["b","a","ü\n"]}""")).ShouldBe((200, ""));
        (await host.SendAsync("get", """{"keys":[[0.3,0.4,0.5],[9,9,9],[-1,0.0025,0],[0.1,0.2,0.3]]}""")).ShouldBe(
            (200, """{"keys":[[-1,0.0025,0],[0.1,0.2,0.3],[0.3,0.4,0.5]],"values":["ü\n","a","b"]}"""));
        (await host.SendAsync("find", """{"topk":2,"key":[0.1,0.2,0.3]}""")).ShouldBe(
            (200, """{"keys":[[0.1,0.2,0.3],[0.3,0.4,0.5]],"values":["a","b"],"similarities":[1,0.9827076]}"""));
        (await host.SendAsync("delete", """{"keys":[[0.1,0.2,0.3],[7,7,7]]}""")).ShouldBe((200, ""));
        (await host.SendAsync("find", """{"topk":5,"key":[1,0,0],"backend":"local-store"}""")).ShouldBe(
            (200, """{"keys":[[0.3,0.4,0.5],[-1,0.0025,0]],"values":["b","ü\n"],"similarities":[0.4242641,-0.9999969]}"""));
        (await host.SendAsync("get", """{"keys":[[0.1,0.2,0.3]]}""")).ShouldBe((200, """{"keys":[],"values":[]}"""));
    }

    [Fact]
    public async Task A_set_replaces_what_is_there_and_stores_know_nothing_of_each_other()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.SendAsync("set", """{"store":"faces","keys":[[1,2],[0,-0.0],[1,2]],"values":["old","zero","first"]}""");
        await host.SendAsync("set", """{"store":"faces","keys":[[1,2]],"values":["new"]}""");
        await host.SendAsync("set", """{"store":"../voices?","keys":[[1,2,3]],"values":["v"]}""");

        (await host.SendAsync("find", """{"store":"faces","key":[1,2],"topk":9}""")).Body.ShouldBe("""{"keys":[[1,2],[0,0]],"values":["new","zero"],"similarities":[1,0]}""");
        (await host.SendAsync("get", """{"store":"faces","keys":[[-0.0,0]]}""")).Body.ShouldBe("""{"keys":[[0,0]],"values":["zero"]}""");
        (await host.SendAsync("get", """{"store":"../voices?","keys":[[1,2,3]]}""")).Body.ShouldBe("""{"keys":[[1,2,3]],"values":["v"]}""");
        (await host.SendAsync("find", """{"key":[1],"topk":1}""")).ShouldBe((200, """{"keys":[],"values":[],"similarities":[]}"""));
        Directory.GetFileSystemEntries(Path.Combine(host.Node.Data, "stores")).Select(Path.GetFileName).ShouldBe(["faces.vectors", "..%2Fvoices%3F.vectors"], ignoreOrder: true);
    }

    [Theory]
    [InlineData("set", """{"keys":[],"values":[]}""", 500, "no keys to add")]
    [InlineData("set", "{}", 500, "no keys to add")]
    [InlineData("delete", """{"keys":[]}""", 500, "no keys to delete")]
    [InlineData("get", """{"keys":null}""", 500, "no keys to get")]
    [InlineData("set", """{"keys":[[1,2]],"values":["a","b"]}""", 500, "len(keys) = 1, len(values) = 2")]
    [InlineData("set", """{"keys":[[5,5],[1,2,3]],"values":["a","b"]}""", 500, "Try to add key with length 3 when existing length is 2")]
    [InlineData("set", """{"keys":[[1,2,3]],"values":["a"]}""", 500, "Try to add key with length 3 when existing length is 2")]
    [InlineData("delete", """{"keys":[[1]]}""", 500, "Trying to delete key with length 1 when existing length is 2")]
    [InlineData("get", """{"keys":[[1,0],[1]]}""", 500, "Try to get a key with length 1 when existing length is 2")]
    [InlineData("find", """{"key":[1,2,3],"topk":1}""", 500, "Try to find key with length 3 when existing length is 2")]
    [InlineData("find", """{"key":[1,2],"topk":0}""", 500, "opts.TopK = 0, must be >= 1")]
    [InlineData("find", """{"key":[1,2],"topk":-1}""", 500, "opts.TopK = -1, must be >= 1")]
    [InlineData("find", """{"key":[1,2]}""", 500, "opts.TopK = 0, must be >= 1")]
    [InlineData("find", """{"key":[1,2],"topk":10001}""", 400, "topk is above 10000.")]
    [InlineData("find", """{"key":[1,2],"topk":1.5}""", 400, "topk: is null or has the wrong type")]
    [InlineData("find", """{"key":[],"topk":1}""", 400, "key has no numbers.")]
    [InlineData("find", """{"topk":1}""", 400, "key has no numbers.")]
    [InlineData("set", """{"keys":[[1,2],[]],"values":["a","b"]}""", 400, "keys[1] has no numbers.")]
    [InlineData("set", """{"keys":[[5,5],null],"values":["a","b"]}""", 400, "keys[1] has no numbers.")]
    [InlineData("set", """{"keys":[[5,5],[1,1e39]],"values":["a","b"]}""", 400, "keys[1][1] is outside the range of a 32-bit floating-point number.")]
    [InlineData("set", """{"keys":[[5,5],[6,6]],"values":["a",null]}""", 400, "values[1] is null.")]
    [InlineData("set", """{"keys":[[5,"NaN"]],"values":["a"]}""", 400, "keys[0][1]: is null or has the wrong type")]
    [InlineData("set", """{"keys":[[5,NaN]],"values":["a"]}""", 400, "the body is not valid JSON (line 1, byte 13)")]
    [InlineData("set", """{"keys":[[5,5]],"values":["a"],"backend":"valkey-store"}""", 400, "There is no store backend 'valkey-store'; there is local-store.")]
    [InlineData("set", "", 400, "the body is missing or is not JSON")]
    public async Task What_is_wrong_is_refused_and_changes_nothing(string route, string body, int status, string message)
    {
        await using var host = await ControlPlane.StartAsync();
        await host.SendAsync("set", """{"keys":[[1,0]],"values":["there"]}""");
        var before = new FileInfo(Path.Combine(host.Node.Data, "stores", "default.vectors")).Length;

        var (code, answer) = await host.SendAsync(route, body);

        answer.ShouldBe(Error(status, message));
        code.ShouldBe(status);
        new FileInfo(Path.Combine(host.Node.Data, "stores", "default.vectors")).Length.ShouldBe(before);
        (await host.SendAsync("find", """{"key":[1,0],"topk":9}""")).Body.ShouldBe("""{"keys":[[1,0]],"values":["there"],"similarities":[1]}""");
    }

    private static string Error(int status, string message) => $$$"""{"error":{"code":{{{status}}},"message":{{{JsonSerializer.Serialize(message)}}},"type":""}}""";

    [Fact]
    public async Task Names_that_no_file_can_have_too_many_stores_and_too_much_of_them_are_refused()
    {
        await using var host = await ControlPlane.StartAsync(configuration: ["Stores:MaxStores=2", "Stores:MaxBytes=1048576", "Stores:MaxRequestBytes=1000000"]);
        string Set(string store, string value) => JsonSerializer.Serialize(new { store, keys = new[] { new[] { value.Length } }, values = new[] { value } });

        (await host.SendAsync("set", Set(new string('ü', 100), "x"))).Status.ShouldBe(400);
        (await host.SendAsync("set", Set("a", new string('x', 900_000)))).Status.ShouldBe(200);
        (await host.SendAsync("set", Set("b", new string('x', 200_000)))).ShouldBe((503, """{"error":{"code":503,"message":"The stores have no room for this (Stores:MaxBytes).","type":""}}"""));
        (await host.SendAsync("set", Set("b", "x"))).Status.ShouldBe(200);
        (await host.SendAsync("set", Set("c", "x"))).ShouldBe((503, """{"error":{"code":503,"message":"There are 2 stores (Stores:MaxStores).","type":""}}"""));
        (await host.SendAsync("get", """{"store":"c","keys":[[1]]}""")).Status.ShouldBe(200);
        (await host.SendAsync("delete", """{"store":"a","keys":[[900000]]}""")).Status.ShouldBe(200);
        (await host.SendAsync("set", Set("b", new string('x', 200_000)))).Status.ShouldBe(200);
    }

    [Fact]
    public async Task Bodies_that_are_too_large_or_no_json_and_other_methods_and_paths_have_the_envelope_too()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Stores:MaxRequestBytes=2048");
        async Task<(int, string)> AnswerAsync(HttpMethod method, string path, HttpContent? content)
        {
            using var request = new HttpRequestMessage(method, path) { Content = content };
            using var answer = await host.Client.SendAsync(request, Ct);
            return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct));
        }

        (await host.SendAsync("set", $$"""{"keys":[[1]],"values":["{{new string('x', 3000)}}"]}""")).ShouldBe((413, """{"error":{"code":413,"message":"The body is too large.","type":""}}"""));
        (await AnswerAsync(HttpMethod.Post, "/stores/set", new StringContent("keys"))).ShouldBe(
            (415, """{"error":{"code":415,"message":"The body must be JSON, with Content-Type: application/json.","type":""}}"""));
        (await AnswerAsync(HttpMethod.Get, "/stores/set", null)).ShouldBe((405, """{"error":{"code":405,"message":"Method Not Allowed","type":""}}"""));
        (await AnswerAsync(HttpMethod.Post, "/stores/drop", null)).ShouldBe((404, """{"error":{"code":404,"message":"Resource not found","type":""}}"""));
    }

    [Fact]
    public async Task Stores_are_for_inference_keys_once_there_is_one()
    {
        await using var host = await ControlPlane.StartAsync();
        using var made = await host.Client.PostAsJsonAsync("/api/api-keys", new { label = "k" }, Ct);
        var key = (await made.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("key").GetString();
        const string Body = """{"keys":[[1]],"values":["x"]}""";

        var refused = await host.SendAsync("set", Body);
        host.Client.DefaultRequestHeaders.Authorization = new("Bearer", key);
        var taken = await host.SendAsync("set", Body);

        refused.ShouldBe((401, """{"error":{"code":401,"message":"An authentication key is required","type":"invalid_request_error"}}"""));
        taken.Status.ShouldBe(200);
    }

    [Fact]
    public async Task What_was_acknowledged_is_there_after_a_restart()
    {
        using var node = new TestNode();
        await using (var host = await ControlPlane.StartAsync(node))
        {
            await Task.WhenAll(Enumerable.Range(0, 100).Select(i => host.SendAsync("set", $$"""{"store":"s","keys":[[{{i}},1]],"values":["{{i}}"]}""")));
            await host.SendAsync("delete", """{"store":"s","keys":[[50,1]]}""");
        }

        await using var again = await ControlPlane.StartAsync(node);
        var (_, answer) = await again.SendAsync("find", """{"store":"s","key":[0,1],"topk":1000}""");

        var values = JsonDocument.Parse(answer).RootElement.GetProperty("values").EnumerateArray().Select(value => value.GetString()).ToArray();
        values.ShouldBe(Enumerable.Range(0, 100).Where(i => i != 50).Select(i => $"{i}"));
        (await again.SendAsync("get", """{"store":"s","keys":[[1,2,3]]}""")).Status.ShouldBe(500);
        File.GetUnixFileMode(Path.Combine(node.Data, "stores", "s.vectors")).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }
}

internal static class StoreCalls
{
    public static async Task<(int Status, string Body)> SendAsync(this ControlPlane host, string route, string body)
    {
        using var content = new StringContent(body, Encoding.UTF8, "application/json");
        using var answer = await host.Client.PostAsync(new Uri($"/stores/{route}", UriKind.Relative), content, TestContext.Current.CancellationToken);
        return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
    }
}
