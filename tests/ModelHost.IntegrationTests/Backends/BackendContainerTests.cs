using Microsoft.Extensions.DependencyInjection;
using ModelHost.Gateway;
using ModelHost.Protocol.Backend;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Backends;

/// <summary>A gRPC backend of an image, on a real Docker engine.</summary>
public sealed class BackendContainerTests(NodeScripts scripts, RealDockerFixture fixture) : IDisposable
{
    private const string Image = "modelhost-test/node-backend:1";
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);
    private readonly TestNode _node = new(fixture.Docker);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public void Dispose() => _node.Dispose();

    [Fact]
    public async Task An_image_is_a_backend_that_outlives_the_host_and_exchanges_files()
    {
        await scripts.NodeAsync();
        var docker = fixture.Docker;
        var (code, _, errors) = await NodeScripts.RunProgramAsync(
            "env", [$"DOCKER_HOST={docker.Endpoint.OriginalString}", Path.Combine(RealDocker.RepositoryRoot, "tests", "bench", "make-backend-image"), Image], "");
        code.ShouldBe(0, errors);
        string[] configuration = [$"Node:Backends:boxed:Image={Image}"];
        int id;
        string container;
        await using (var first = await ControlPlane.StartAsync(_node, configuration: configuration))
        {
            id = await first.Client.ServeAsync(TestBackends.Request(await first.Client.NodeAsync("docker"), "boxed"));
            container = (await docker.CliAsync(Ct, "ps", "-q", "--filter", "label=modelhost.run=" + first.Route().RunId)).Trim();
            container.ShouldNotBeEmpty();
        }
        await using var host = await ControlPlane.StartAsync(_node, configuration: configuration);
        await Deadline.UntilAsync(() => host.Services.GetRequiredService<RouteSource>().Current.Find("tiny").Route is { IsRoutable: true }, 60);
        var (route, connections) = (host.Route(), host.Services.GetRequiredService<BackendConnections>());

        (await host.Backend().PredictAsync(new PredictOptions { Prompt = "from a box" }, s_limit, Ct)).Message.ToStringUtf8().ShouldBe("echo from a box");
        await using (var spoken = await connections.FileAsync(route, "wav", null, Ct))
        {
            (await host.Backend().TtsAsync(new TTSRequest { Text = "hello", Dst = spoken.Path }, s_limit, Ct)).Success.ShouldBeTrue();
            await using var read = (await spoken.OpenReadAsync(Ct)).ShouldNotBeNull();
            (await new StreamReader(read).ReadToEndAsync(Ct)).ShouldBe("RIFFhello");
        }
        await Deadline.UntilAsync(() => host.Client.MonitorAsync(), status => status.GetProperty("state").GetInt32() == 2);
        (await docker.CliAsync(Ct, "ps", "-q", "--filter", "label=modelhost.run=" + route.RunId)).Trim().ShouldBe(container);
        await host.Client.StopModelAsync(id);
        (await docker.CliAsync(Ct, "ps", "-aq", "--filter", "label=modelhost.run=" + route.RunId)).Trim().ShouldBeEmpty();
    }
}
