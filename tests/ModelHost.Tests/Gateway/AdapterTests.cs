using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Gateway;

/// <summary>Adapters and local models before a simulated engine.</summary>
public sealed class AdapterTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Adapters_are_listed_under_their_model_and_answer_by_their_names()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"), change: request =>
        {
            request["engine_args"] = new JsonObject { ["served_model_name"] = "chat", ["max_loras"] = 2, ["max_lora_rank"] = 64 };
            request["lora_modules"] = new JsonArray(Module("sql", "org/sql"), Module("team/poems-ü", "org/poems"));
        }));
        await host.Client.StatusAsync(id, "running");

        var cards = (await host.Client.JsonAsync("/v1/models")).GetProperty("data").EnumerateArray()
            .Select(card => (card.GetProperty("id").GetString(), card.GetProperty("parent").GetString())).ToArray();
        var answers = new List<string>();
        foreach (var name in (string[])["sql", "team/poems-ü", "chat"])
        {
            using var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(name, maxTokens: 3), Ct);
            answer.StatusCode.ShouldBe(HttpStatusCode.OK);
            answers.Add((await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("model").GetString()!);
        }
        using var taken = await host.Client.PostAsJsonAsync("/api/deployments/start", Api.StartRequest(1, 8102, "demo/other", change: request =>
            request["lora_modules"] = new JsonArray(Module("sql", "org/sql"))), Ct);
        await host.Client.StopModelAsync(id);

        cards.ShouldBe([("chat", null), ("sql", "chat"), ("team/poems-ü", "chat")]);
        answers.ShouldBe(["sql", "team/poems-ü", "chat"]);
        taken.StatusCode.ShouldBe(HttpStatusCode.Conflict);
        (await taken.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("code").GetString().ShouldBe("deployment.name_taken");
    }

    [Theory]
    [InlineData("/v1/models")]
    [InlineData("/v1/models/nobody")]
    public async Task The_lists_say_what_their_request_is_called(string path)
    {
        await using var host = await ControlPlane.StartAsync();
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        request.Headers.Add("X-Request-Id", "mine");

        using var answer = await host.Client.SendAsync(request, Ct);
        using var unnamed = await host.Client.GetAsync(new Uri(path, UriKind.Relative), Ct);

        answer.Headers.GetValues("X-Request-Id").ShouldBe(["mine"]);
        unnamed.Headers.GetValues("X-Request-Id").ShouldHaveSingleItem().ShouldNotBeEmpty();
    }

    [Fact]
    public async Task A_model_in_an_allowed_folder_is_served_by_its_path()
    {
        using var node = new TestNode();
        var models = Directory.CreateDirectory(Path.Combine(node.Data, "weights")).FullName;
        Directory.CreateDirectory(Path.Combine(models, "qwen"));
        await using var host = await ControlPlane.StartAsync(node, configuration: $"Node:ModelFolders={models}");
        var nodeId = await host.Client.NodeAsync("process");

        var id = await host.Client.StartModelAsync(Api.StartRequest(nodeId, model: $"{models}/qwen"));
        await host.Client.StatusAsync(id, "running");
        using var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat($"{models}/qwen", maxTokens: 3), Ct);
        using var outside = await host.Client.PostAsJsonAsync("/api/deployments/start", Api.StartRequest(nodeId, 8102, node.Data), Ct);
        await host.Client.StopModelAsync(id);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        outside.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        (await outside.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("errors").GetProperty("model_name")[0].GetString()!.ShouldContain(models);
    }

    [Fact]
    public async Task A_link_in_an_allowed_folder_is_found_at_the_start()
    {
        using var node = new TestNode();
        var models = Directory.CreateDirectory(Path.Combine(node.Data, "weights")).FullName;
        File.CreateSymbolicLink(Path.Combine(models, "link"), node.Data);
        await using var host = await ControlPlane.StartAsync(node, configuration: $"Node:ModelFolders={models}");

        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"), model: $"{models}/link"));
        var failed = await host.Client.StatusAsync(id, "error");

        failed.GetProperty("last_error").GetString()!.ShouldContain($"model_name: {models}/link leads through a symbolic link");
    }

    private static JsonObject Module(string name, string path) => new() { ["name"] = name, ["path"] = path };
}
