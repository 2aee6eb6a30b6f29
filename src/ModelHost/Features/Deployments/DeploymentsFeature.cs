using ModelHost.Access;

namespace ModelHost.Features.Deployments;

/// <summary>Models that are served, and the wish for them.</summary>
internal static class DeploymentsFeature
{
    /// <summary>Adds the services.</summary>
    public static IServiceCollection AddDeployments(this IServiceCollection services) => services
        .AddSingleton<EnvironmentVault>().AddSingleton<Idempotency>().AddSingleton<LaunchChecks>()
        .AddSingleton<DeploymentReads>().AddSingleton<DeploymentStarts>().AddSingleton<DeploymentService>().AddSingleton<DeploymentPlans>()
        .AddSingleton<DeploymentManifests>().AddSingleton<DeploymentLogFiles>().AddSingleton<DeploymentWaits>().AddSingleton<LaunchCalls>();

    /// <summary>Maps <c>/api/deployments</c>.</summary>
    public static void MapDeployments(this IEndpointRouteBuilder api)
    {
        var group = api.MapGroup("/deployments").WithTags("Deployments").AdminOnly();
        group.MapDeploymentReads();
        group.MapLaunches();
        group.MapDeploymentChanges();
    }
}
