using ModelHost.Access;
using ModelHost.Common;

namespace ModelHost.Features.Deployments;

/// <summary>Models that are served, and the wish for them.</summary>
internal static class DeploymentsFeature
{
    /// <summary>Adds the services.</summary>
    public static IServiceCollection AddDeployments(this IServiceCollection services)
    {
        services.AddCheckedOptions<LifecycleOptions>(LifecycleOptions.Section)
            .Validate(options => options.RelaunchDelay <= options.MaxRelaunchDelay, "Lifecycle:RelaunchDelay is above Lifecycle:MaxRelaunchDelay.");
        return services
            .AddSingleton<LifecyclePolicySource>().AddSingleton<EnvironmentVault>().AddSingleton<Idempotency>().AddSingleton<LaunchChecks>()
            .AddSingleton<DeploymentReads>().AddSingleton<DeploymentRuns>().AddSingleton<DeploymentStarts>().AddSingleton<DeploymentService>()
            .AddSingleton<DeploymentPlans>().AddSingleton<DeploymentManifests>().AddSingleton<DeploymentLogFiles>().AddSingleton<DeploymentWaits>()
            .AddSingleton<LaunchCalls>().AddSingleton<RunEnds>().AddSingleton<OnDemandStarts>();
    }

    /// <summary>Maps <c>/api/deployments</c>.</summary>
    public static void MapDeployments(this IEndpointRouteBuilder api)
    {
        var group = api.MapGroup("/deployments").WithTags("Deployments").AdminOnly();
        group.MapDeploymentReads();
        group.MapLaunches();
        group.MapDeploymentChanges();
    }
}
