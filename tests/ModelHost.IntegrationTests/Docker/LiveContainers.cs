using ModelHost.Docker;

namespace ModelHost.IntegrationTests.Docker;

/// <summary>A client of the real engine, and the containers that one test makes with it: they are gone afterwards.</summary>
internal sealed class LiveContainers(RealDockerFixture fixture) : IAsyncDisposable
{
    private readonly List<string> _ids = [];

    /// <summary>Unlike that of any other test, for names and labels.</summary>
    public string Mark { get; } = Guid.NewGuid().ToString("N")[..12];

    public DockerClient Client { get; } = new(fixture.Docker.Endpoint);

    public ContainerSpec Shell(string script) => new()
    {
        Image = "modelhost-test/busybox:1",
        Command = ["sh", "-c", script],
        Labels = new Dictionary<string, string> { ["modelhost.test"] = Mark },
    };

    public async Task<string> CreateAsync(ContainerSpec spec, string? name = null)
    {
        var created = await Client.CreateContainerAsync(spec, name, TestContext.Current.CancellationToken);
        _ids.Add(created.Id);
        return created.Id;
    }

    public async Task<string> StartAsync(ContainerSpec spec, string? name = null)
    {
        var id = await CreateAsync(spec, name);
        await Client.StartContainerAsync(id, TestContext.Current.CancellationToken);
        return id;
    }

    /// <summary>Runs a container to its end and returns its lines.</summary>
    public async Task<List<LogLine>> RunAsync(ContainerSpec spec, LogQuery? query = null)
    {
        var lines = new List<LogLine>();
        await foreach (var line in Client.ReadLogsAsync(
            await StartAsync(spec), query ?? new() { Follow = true }, TestContext.Current.CancellationToken))
            lines.Add(line);
        return lines;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var id in _ids)
        {
            try
            {
                await Client.RemoveContainerAsync(id, force: true, CancellationToken.None);
            }
            catch (DockerException e) when (e.StatusCode == System.Net.HttpStatusCode.NotFound)
            {
                // the test removed it itself
            }
        }
        Client.Dispose();
    }
}
