using ModelHost.Docker;
using ModelHost.IntegrationTests;
using ModelHost.TestKit;

[assembly: AssemblyFixture(typeof(RealDockerFixture))]

namespace ModelHost.IntegrationTests;

/// <summary>One real Docker engine for all tests of this assembly. Take it as a constructor argument.</summary>
public sealed class RealDockerFixture : IAsyncLifetime
{
    private readonly SemaphoreSlim _pruning = new(1);
    private RealDocker? _docker;

    /// <summary>The engine; skips the calling test where there is none.</summary>
    public RealDocker Docker
    {
        get
        {
            Assert.SkipWhen(_docker!.SkipReason is not null, _docker.SkipReason ?? "");
            return _docker;
        }
    }

    /// <summary>Removes images that nobody uses. One test at a time: an engine refuses a second clean-up beside the first.</summary>
    internal async Task<PruneReport> PruneAsync(DockerClient client, IReadOnlyDictionary<string, string?> labels, bool danglingOnly)
    {
        await _pruning.WaitAsync(TestContext.Current.CancellationToken);
        try
        {
            return await client.PruneImagesAsync(labels, danglingOnly, TestContext.Current.CancellationToken);
        }
        finally
        {
            _pruning.Release();
        }
    }

    public async ValueTask InitializeAsync() => _docker = await RealDocker.StartAsync(TestContext.Current.CancellationToken);

    public ValueTask DisposeAsync()
    {
        _pruning.Dispose();
        return _docker?.DisposeAsync() ?? default;
    }
}
