using System.Text.Json;
using ModelHost.IntegrationTests.Docker;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>A real Podman, a registry that it pulls from, and CDI specifications of two GPUs that leave a mark in the containers that get them.</summary>
public sealed class PodmanFixture : IAsyncLifetime
{
    private RealDocker? _podman;
    private HandMadeRegistry? _registry;
    private NetworkRelay? _network;

    /// <summary>The engine; skips the calling test where there is none.</summary>
    public RealDocker Podman
    {
        get
        {
            Assert.SkipWhen(_podman!.SkipReason is not null, _podman.SkipReason ?? "");
            return _podman;
        }
    }

    internal HandMadeRegistry Registry => _registry!;

    /// <summary>What lies between the engine and the registry.</summary>
    internal NetworkRelay Network => _network!;

    public async ValueTask InitializeAsync()
    {
        _registry = await HandMadeRegistry.StartAsync();
        _network = new NetworkRelay(_registry.Host);
        _podman = await RealDocker.StartPodmanAsync(_network.Host, TestContext.Current.CancellationToken);
        if (_podman.SkipReason is null)
            await File.WriteAllTextAsync(Path.Combine(_podman.CdiFolder, "nvidia.json"), JsonSerializer.Serialize(new
            {
                cdiVersion = "0.3.0",
                kind = "nvidia.com/gpu",
                devices = Enumerable.Range(0, 2).Select(i => new
                {
                    name = $"{i}",
                    containerEdits = new
                    {
                        env = new[] { $"GPU_{i}=here" },
                        mounts = new[] { new { hostPath = "/etc/hostname", containerPath = $"/gpu-{i}", options = new[] { "ro", "bind" } } },
                    },
                }),
            }));
    }

    public async ValueTask DisposeAsync()
    {
        if (_podman is not null)
            await _podman.DisposeAsync();
        if (_network is not null)
            await _network.DisposeAsync();
        if (_registry is not null)
            await _registry.DisposeAsync();
    }
}
