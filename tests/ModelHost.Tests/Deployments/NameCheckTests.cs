using System.Net;
using System.Text.Json.Nodes;
using ModelHost.Core.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

public sealed class NameCheckTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Taken_names_come_with_their_holder_and_the_first_free_number()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        Task<string> CheckAsync(string query) => host.Client.GetStringAsync(new Uri("/api/deployments/served-name/check?" + query, UriKind.Relative), Ct);
        Task<int> StartAsync(int port, string name, string? adapter = null) => host.Client.StartModelAsync(Api.StartRequest(node.Id, port, "org/model", change: request =>
        {
            request["engine_args"] = new JsonObject { ["served_model_name"] = name };
            if (adapter is not null)
                request["lora_modules"] = new JsonArray(new JsonObject { ["name"] = adapter, ["path"] = "org/lora" });
        }));

        (await CheckAsync("name=m")).ShouldBe("""{"available":true}""");
        (await CheckAsync("name=%20%20")).ShouldBe("""{"available":true}""");
        var first = await StartAsync(8101, "m", "sql");
        (await CheckAsync("name=m")).ShouldBe($$"""{"available":false,"conflict_id":{{first}},"conflict_model":"org/model","suggestion":"m-2"}""");
        (await CheckAsync("name=%20m%20")).ShouldContain("\"suggestion\":\"m-2\"");
        (await CheckAsync("name=sql")).ShouldContain("\"suggestion\":\"sql-2\"");
        // a model's own name is free where it is served under another
        (await CheckAsync("name=org/model")).ShouldBe("""{"available":true}""");
        (await CheckAsync($"name=m&exclude_id={first}")).ShouldBe("""{"available":true}""");
        var second = await StartAsync(8102, "m-2");
        (await CheckAsync("name=m")).ShouldContain("\"suggestion\":\"m-3\"");
        (await CheckAsync($"name=m&exclude_id={second}")).ShouldContain("\"suggestion\":\"m-2\"");
        await node.SetAsync(first, DeploymentStatus.Stopped);
        (await CheckAsync("name=m")).ShouldBe("""{"available":true}""");
    }

    [Fact]
    public async Task A_suggestion_is_never_longer_than_a_name_may_be()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        var name = new string('n', 255);
        await host.Client.StartModelAsync(Api.StartRequest(node.Id, change: request => request["engine_args"] = new JsonObject { ["served_model_name"] = name }));

        var check = await host.Client.JsonAsync($"/api/deployments/served-name/check?name={name}");

        check.Text("suggestion").ShouldBe(name[..253] + "-2");
    }

    [Theory]
    [InlineData("", "name")]
    [InlineData("?name=x&exclude_id=y", "exclude_id")]
    [InlineData("?name=LONG", "name")]
    public async Task A_check_of_nothing_is_refused(string query, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        var path = "/api/deployments/served-name/check" + query.Replace("LONG", new string('x', 256), StringComparison.Ordinal);

        await host.Client.GetAsync(new Uri(path, UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);
    }
}
