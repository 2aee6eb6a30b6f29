using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Access;
using ModelHost.Common;
using ModelHost.Features.Deployments;

namespace ModelHost.Features.Configs;

/// <summary>Fields of deployments, saved under names.</summary>
internal static class ConfigsFeature
{
    /// <summary>Adds the service.</summary>
    public static IServiceCollection AddConfigs(this IServiceCollection services) => services.AddSingleton<ConfigService>();

    /// <summary>Maps <c>/api/configs</c>.</summary>
    public static void MapConfigs(this IEndpointRouteBuilder api)
    {
        var group = api.MapGroup("/configs").WithTags("Configs").AdminOnly();
        group.MapGet("/", ListAsync).WithName("ListConfigs").WithSummary("List all saved configurations by name, with masked variables.");
        group.MapPost("/", CreateAsync).WithName("CreateConfig").WithSummary("Save a configuration for later.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status409Conflict);
        group.MapPut("/{id:int}", ReplaceAsync).WithName("ReplaceConfig")
            .WithSummary("Replace a saved configuration; a masked variable keeps its stored value.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapDelete("/{id:int}", DeleteAsync).WithName("DeleteConfig").WithSummary("Delete a saved configuration.")
            .ProducesProblem(StatusCodes.Status404NotFound);
    }

    private static async Task<Ok<IReadOnlyList<DeploymentConfigRead>>> ListAsync(ConfigService configs, CancellationToken cancellationToken) =>
        TypedResults.Ok(await configs.ListAsync(cancellationToken));

    private static async Task<Results<Ok<DeploymentConfigRead>, ProblemHttpResult>> CreateAsync(
        DeploymentConfigCreate request, ConfigService configs, CancellationToken cancellationToken) =>
        (await configs.CreateAsync(request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<DeploymentConfigRead>, ProblemHttpResult>> ReplaceAsync(
        int id, DeploymentConfigCreate request, ConfigService configs, CancellationToken cancellationToken) =>
        (await configs.ReplaceAsync(id, request, cancellationToken)).ToAnswer();

    private static async Task<Results<Ok<Deleted>, ProblemHttpResult>> DeleteAsync(int id, ConfigService configs, CancellationToken cancellationToken) =>
        (await configs.DeleteAsync(id, cancellationToken)).ToAnswer();
}
