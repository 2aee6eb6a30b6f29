using System.Net;
using System.Net.Http.Headers;
using System.Net.NetworkInformation;
using System.Text.Json.Nodes;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

public sealed class ContainerTests(RealDockerFixture fixture)
{
    private const string Secret = "hf_a-secret-of-the-tests";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Container_is_made_as_the_deployment_says()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        var model = EngineNode.NewModel();
        await host.Client.RunModelAsync(node.Request(await host.Client.NodeAsync("docker"), model, change: request =>
        {
            request["engine_args"] = new JsonObject { ["max_model_len"] = 2048, ["served_model_name"] = model + "-chat" };
            request["extra_args"] = new JsonArray("--enforce-eager");
        }, variables: ("HF_TOKEN", Secret)));

        var container = await node.ContainerAsync();
        var port = container.Labels["modelhost.engine_port"];
        var variables = container.Env.Select(pair => pair.Split('=', 2)).ToDictionary(pair => pair[0], pair => pair[1]);

        container.ImageName.ShouldBe("vllm/vllm-openai:v0.28.0");
        container.Command.ShouldBe(
        [
            "--model", model, "--host", "127.0.0.1", "--port", port, "--gpu-memory-utilization", "0.4",
            "--served-model-name", model + "-chat", model, "--max-model-len", "2048", "--enforce-eager",
        ]);
        (container.NetworkMode, container.IpcMode, container.RestartPolicy).ShouldBe(("host", "host", "no"));
        container.Mounts.ShouldHaveSingleItem().ShouldBe(
            new(Path.Combine(node.Surroundings.Data, "models", "huggingface"), "/root/.cache/huggingface", ReadOnly: false));
        variables["HF_TOKEN"].ShouldBe(Secret);
        variables["VLLM_API_KEY"].Length.ShouldBeGreaterThanOrEqualTo(32);
        Guid.TryParse(container.Labels["modelhost.deployment"], out _).ShouldBeTrue();
        Guid.TryParse(container.Labels["modelhost.run"], out _).ShouldBeTrue();
        container.Labels["modelhost.cluster"].ShouldBe((await File.ReadAllTextAsync(Path.Combine(node.Surroundings.Data, "cluster-id"), Ct)).Trim());
        container.Labels["modelhost.spec"].ShouldContain("HF_TOKEN");
        foreach (var text in container.Labels.Values.Concat(container.Command).Append(container.Name))
        {
            text.ShouldNotContain(Secret);
            text.ShouldNotContain(variables["VLLM_API_KEY"]);
        }
    }

    [Fact]
    public async Task Engine_listens_on_the_loopback_only_and_is_closed_without_the_key_of_its_run()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        await host.Client.RunModelAsync(node.Request(await host.Client.NodeAsync("docker"), EngineNode.NewModel()));
        var container = await node.ContainerAsync();
        var port = int.Parse(container.Labels["modelhost.engine_port"], null);
        using var engine = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{port}") };

        using var stranger = await engine.GetAsync(new Uri("/v1/models", UriKind.Relative), Ct);
        engine.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", container.Env.Single(v => v.StartsWith("VLLM_API_KEY=", StringComparison.Ordinal))[13..]);
        using var known = await engine.GetAsync(new Uri("/v1/models", UriKind.Relative), Ct);
        var listeners = IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Where(l => l.Port == port);

        stranger.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        known.StatusCode.ShouldBe(HttpStatusCode.OK);
        listeners.ShouldHaveSingleItem().Address.ShouldBe(IPAddress.Loopback);
    }

    [Fact]
    public async Task Secret_values_are_masked_in_the_log_and_in_the_answers()
    {
        await using var node = await EngineNode.MakeAsync(fixture);
        await using var host = await ControlPlane.StartAsync(node.Surroundings);
        // the engine prints its model's name, and so this value
        var model = "demo/" + Secret;
        var id = await host.Client.RunModelAsync(node.Request(
            await host.Client.NodeAsync("docker"), model, change: request => request["engine_args"] = new JsonObject { ["served_model_name"] = EngineNode.NewModel() },
            variables: [("HF_TOKEN", Secret), ("VLLM_SIM_LOAD_SECONDS", "0")]));

        var log = await Deadline.UntilAsync(() => host.Client.LogAsync(id), log => log.Any(line => line.Contains("Starting to load model", StringComparison.Ordinal)));
        var deployment = await host.Client.JsonAsync($"/api/deployments/{id}");

        log.ShouldContain(line => line.Contains("Starting to load model demo/********", StringComparison.Ordinal));
        log.ShouldAllBe(line => !line.Contains(Secret, StringComparison.Ordinal));
        deployment.GetProperty("env_vars").EnumerateArray().Select(v => v.Text("value")).ShouldAllBe(value => value == "********");
    }
}
