using ModelHost.Cluster.Discovery;
using ModelHost.Common;
using ModelHost.Hosting;

namespace ModelHost.Cluster;

/// <summary>Nodes on other machines.</summary>
internal static class ClusterFeature
{
    /// <summary>Adds what takes and links nodes; after the service that brings the database up to date.</summary>
    public static void AddCluster(this IServiceCollection services)
    {
        services.AddCheckedOptions<ClusterOptions>(ClusterOptions.Section);
        services.AddSingleton<ClusterBook>().AddSingleton<NodeLinks>().AddSingleton<ClusterService>().AddSingleton<ClusterListener>();
        services.AddCheckedOptions<ConsulOptions>(ConsulOptions.Section)
            .Validate(consul => consul.IsTokenUsable, "Discovery:Consul:Token: a token is up to 4096 visible ASCII characters.");
        services.AddSingleton<ConsulCatalogue>().AddSingleton<NodeProbe>().AddSingleton<ConsulDiscovery>().AddSingleton<RefusedBeats>().AddSingleton<NodeDiscovery>();
        // its key is made when it is first needed
        services.AddSingleton(provider => new Lazy<ClusterAuthority>(
            () => new ClusterAuthority(provider.GetRequiredService<DataFolder>(), provider.GetRequiredService<TimeProvider>())));
        services.AddHostedService(provider => provider.GetRequiredService<ClusterListener>());
        services.AddHostedService(provider => provider.GetRequiredService<ConsulDiscovery>());
    }
}
