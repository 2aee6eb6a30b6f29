using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>Images of a registry that lets nobody in without a login.</summary>
public sealed class RegistryLoginTests(RealDockerFixture fixture)
{
    private const string User = "robot", Password = "s3cret-of-the-registry";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Deployments_and_upgrades_pull_with_the_nodes_login_and_nobody_else_hears_of_it(bool wantsToken)
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        registry.Release("v1.1.0");
        registry.Lock($"{User}:{Password}", wantsToken);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ModelHostProcess.ServeAsync(node.Surroundings, 0, [.. Settings(registry, Password), "Logging:LogLevel:Default=Debug"]);
        using var client = new HttpClient { BaseAddress = host.Url };
        var id = await client.RunModelAsync(node.Request(await client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["vllm_version"] = StandInEngine.Tag));
        using var upgraded = await client.PostAsync(new Uri("/backends/upgrade/vllm?version=1.1.0&nodes=1&wait=true", UriKind.Relative), null, Ct);
        var job = await upgraded.Content.ReadAsStringAsync(Ct);

        job.ShouldContain("\"message\":\"completed\"");
        (await node.Client.ListImagesAsync(registry.Repository, Ct)).SelectMany(image => image.RepoTags).Count().ShouldBe(2);
        var heard = string.Join('\n', [.. host.Output, job, (await client.JsonAsync($"/api/deployments/{id}")).ToString(), .. await client.LogAsync(id),
            await fixture.Docker.CliAsync(Ct, ["inspect", .. await node.ContainersAsync()])]);
        foreach (var secret in (string[])[Password, Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes($"{User}:{Password}"))])
            heard.ShouldNotContain(secret);
        await host.KillAsync();
        foreach (var file in Directory.GetFiles(node.Surroundings.Data, "*", SearchOption.AllDirectories).Where(file => !file.EndsWith(".sock", StringComparison.Ordinal)))
            (await File.ReadAllBytesAsync(file, Ct)).AsSpan().IndexOf(System.Text.Encoding.UTF8.GetBytes(Password)).ShouldBe(-1, file);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Wrong_login_is_an_error_that_says_so(bool wantsToken)
    {
        await using var registry = await StandInEngine.MakeAsync(fixture);
        registry.Lock($"{User}:{Password}", wantsToken);
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings, configuration: Settings(registry, "another"));

        var id = await host.Client.StartModelAsync(node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel(), change: request => request["vllm_version"] = StandInEngine.Tag));
        var failed = await host.Client.StatusAsync(id, "error");

        failed.Text("error_code").ShouldBe("registry_auth");
        failed.Text("last_error").ShouldStartWith($"Registry {registry.Registry} does not give image {registry.Repository}:{StandInEngine.Tag} without a login that it knows. Give the node one (Node:Registries)");
        failed.Text("last_error").ShouldNotContain("another");
    }

    private static string[] Settings(StandInEngine registry, string password) =>
        [$"Node:ImageRepository={registry.Repository}", $"Node:Registries:0:Host={registry.Registry}", $"Node:Registries:0:Username={User}", $"Node:Registries:0:Password={password}"];
}
