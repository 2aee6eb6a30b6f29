using ModelHost.IntegrationTests;
using ModelHost.TestKit;

[assembly: AssemblyFixture(typeof(RealDockerFixture))]

namespace ModelHost.IntegrationTests;

/// <summary>One real Docker engine for all tests of this assembly. Take it as a constructor argument.</summary>
public sealed class RealDockerFixture : IAsyncLifetime
{
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

    public async ValueTask InitializeAsync() => _docker = await RealDocker.StartAsync(TestContext.Current.CancellationToken);

    public ValueTask DisposeAsync() => _docker?.DisposeAsync() ?? default;
}
