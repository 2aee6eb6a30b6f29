using Microsoft.Extensions.Options;
using ModelHost.Agent;
using ModelHost.Agent.Downloads;
using ModelHost.Features.Galleries;

namespace ModelHost.Features.Backends;

/// <summary>Backends of nodes: what they have, what can be had, and how it gets there.</summary>
internal static class BackendsFeature
{
    /// <summary>Adds the services.</summary>
    public static IServiceCollection AddBackends(this IServiceCollection services) => services
        .AddSingleton<BackendBook>().AddSingleton<BackendInventory>().AddSingleton<BackendShelves>().AddSingleton<BackendPlanner>().AddSingleton<BackendRemoval>().AddSingleton<BackendService>()
        .AddSingleton<BackendReads>().AddSingleton<BackendRecipes>().AddSingleton<BackendUpgrades>().AddSingleton<BackendEndpoints.Waits>()
        // with the logins of its own node, where it has one
        .AddSingleton(provider => new RegistryDigests(
            provider.GetRequiredService<GuardedHttp>(), provider.GetRequiredService<IOptions<DownloadOptions>>().Value, provider.GetRequiredService<IOptions<NodeOptions>>().Value.Registries))
        .AddSingleton<BackendInstallHandler>().AddSingleton<IJobHandler>(provider => provider.GetRequiredService<BackendInstallHandler>()).AddSingleton<IJobHandler, BackendDeleteHandler>();

    /// <summary>Adds what looks for newer versions; behind what brings the database up to date.</summary>
    public static IServiceCollection AddBackendUpgrades(this IServiceCollection services) => services.AddHostedService(provider => provider.GetRequiredService<BackendUpgrades>());
}
