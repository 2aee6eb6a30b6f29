using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Access;
using ModelHost.Common;

namespace ModelHost.Features.Admin;

/// <summary>What is to be forgotten.</summary>
public sealed record PurgeRequest
{
    /// <summary>deployments, nodes, metrics, configs; omit for all. nodes includes deployments and metrics.</summary>
    public IReadOnlyList<string?>? Targets { get; init; }

    /// <summary>Fields that there are not; refused, since a misspelt targets would forget everything.</summary>
    [JsonExtensionData]
    public IDictionary<string, JsonElement>? Unknown { get; init; }
}

/// <summary>What was forgotten.</summary>
/// <param name="Purged">Deleted rows of each table that was asked for: deployments, node_metrics, nodes, deployment_configs.</param>
internal sealed record PurgeResult(IReadOnlyDictionary<string, int> Purged);

/// <summary>What only an administrator does, seldom.</summary>
internal static class AdminFeature
{
    /// <summary>Adds the service.</summary>
    public static IServiceCollection AddAdmin(this IServiceCollection services) => services.AddSingleton<PurgeService>();

    /// <summary>Maps <c>/api/admin</c>.</summary>
    public static void MapAdmin(this IEndpointRouteBuilder api) =>
        api.MapGroup("/admin").WithTags("Admin").AdminOnly()
            .MapPost("/purge", PurgeAsync).WithName("Purge").WithSummary("Delete records by category; running containers are untouched.")
            .WithDescription("Without a body, or without targets, all of them. A node that is linked, and a deployment whose container runs on it, are found again.")
            .ProducesValidationProblem();

    private static async Task<Results<Ok<PurgeResult>, ProblemHttpResult>> PurgeAsync(
        PurgeRequest? request, PurgeService purge, CancellationToken cancellationToken) =>
        (await purge.PurgeAsync(request ?? new PurgeRequest(), cancellationToken)).ToAnswer();
}
