using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.IntegrationTests.Sdk;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Pages;

/// <summary>The pages of a control plane in a real browser.</summary>
public sealed class BrowserTests(NodeScripts scripts)
{
    private static readonly string[] Groups =
        ["OpenAI", "Backends", "Models", "Stores", "Deployments", "Nodes", "Configs", "API Keys", "Usage", "Settings", "Events", "Admin", "Health", "Metrics"];

    [Theory]
    [InlineData("swagger")]
    [InlineData("docs")]
    public async Task Swagger_ui_shows_every_group_in_its_order(string path)
    {
        await using var host = await ControlPlane.StartAsync();

        var page = await LookAsync(host, "swagger", fields => fields["path"] = path);

        page.GetProperty("title").GetString().ShouldStartWith("ModelHost");
        Texts(page, "groups").ShouldBe(Groups);
        Texts(page, "descriptions").ShouldAllBe(text => text.Length > 0);
        Texts(page, "operations").ShouldContain("operations-Nodes-ListNodes");
        Texts(page, "operations").ShouldContain("operations-OpenAI-CreateChatCompletion");
    }

    [Fact]
    public async Task Nodes_are_listed_from_swagger_ui()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");

        var answer = await ExecuteAsync(host, "operations-Nodes-ListNodes");

        answer.GetProperty("body").GetString().ShouldNotBeNull().ShouldContain($"\"hostname\": \"{System.Net.Dns.GetHostName()}\"");
        answer.GetProperty("curl").GetString().ShouldNotBeNull().ShouldContain($"{host.Url}api/nodes");
    }

    [Theory]
    [InlineData("operations-OpenAI-CreateChatCompletion", ServedModel.Chat, "\"chat.completion\"")]
    [InlineData("operations-OpenAI-CreateCompletion", ServedModel.Chat, "\"text_completion\"")]
    [InlineData("operations-OpenAI-CreateEmbedding", "demo/bge-small", "\"embedding\"")]
    public async Task Examples_of_the_gateway_work_as_they_stand(string operation, string model, string expected)
    {
        await using var served = await ServedModel.StartAsync(model);

        var answer = await ExecuteAsync(served.Host, operation);

        answer.GetProperty("body").GetString().ShouldNotBeNull().ShouldContain(expected);
        answer.GetProperty("body").GetString().ShouldNotBeNull().ShouldContain($"\"model\": \"{model}\"");
    }

    [Fact]
    public async Task Example_of_a_start_works_as_it_stands()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");

        var answer = await ExecuteAsync(host, "operations-Deployments-StartDeployment");

        var id = JsonNode.Parse(answer.GetProperty("body").GetString()!)!["id"]!.GetValue<int>();
        await host.Client.StatusAsync(id, "running");
        await host.Client.StopModelAsync(id);
    }

    [Fact]
    public async Task Redoc_shows_every_group()
    {
        await using var host = await ControlPlane.StartAsync();

        var page = await LookAsync(host, "redoc");

        Texts(page, "menu").ShouldBe(Groups, ignoreOrder: false);
    }

    [Fact]
    public async Task First_page_shows_the_models_and_leads_to_swagger_ui()
    {
        await using var served = await ServedModel.StartAsync();

        var page = await LookAsync(served.Host, "welcome");

        page.GetProperty("title").GetString().ShouldBe("ModelHost");
        page.GetProperty("heading").GetString().ShouldNotBeNull().ShouldStartWith("ModelHost");
        Texts(page, "rows").ShouldHaveSingleItem().ShouldBe($"{ServedModel.Chat}\trunning");
        new Uri(page.GetProperty("next").GetString()!).AbsolutePath.ShouldStartWith("/swagger");
    }

    private async Task<JsonElement> ExecuteAsync(ControlPlane host, string operation)
    {
        var answer = await LookAsync(host, "execute", fields => fields["operation"] = operation);
        answer.GetProperty("status").GetString().ShouldBe("200", answer.ToString());
        return answer;
    }

    /// <summary>Lets the browser do something; nothing may be complained about in its console, and no other host asked for anything.</summary>
    private async Task<JsonElement> LookAsync(ControlPlane host, string use, Action<JsonObject>? change = null)
    {
        // kept beside the tests, to be looked at, until the next run
        var shots = Directory.CreateDirectory(Path.Combine(AppContext.BaseDirectory, "screenshots")).FullName;
        TestContext.Current.TestOutputHelper?.WriteLine($"screenshots: {shots}");
        var input = new JsonObject { ["use"] = use, ["url"] = host.Url.AbsoluteUri, ["chromium"] = NodeScripts.Find("chromium", "chromium"), ["shots"] = shots };
        change?.Invoke(input);
        var page = await scripts.RunAsync("pages.mjs", input);
        Texts(page, "complaints").ShouldBeEmpty();
        Texts(page, "foreign").ShouldBeEmpty();
        Directory.GetFiles(shots, "*.png").ShouldNotBeEmpty();
        return page;
    }

    private static string[] Texts(JsonElement page, string name) => [.. page.GetProperty(name).EnumerateArray().Select(text => text.GetString()!.Trim())];
}
