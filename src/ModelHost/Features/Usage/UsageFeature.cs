using System.Text;
using Microsoft.AspNetCore.Mvc;
using ModelHost.Access;
using ModelHost.Common;

namespace ModelHost.Features.Usage;

/// <summary>What models are used for, by key, deployment, owner and day.</summary>
internal static class UsageFeature
{
    /// <summary>Adds the book and what stores it.</summary>
    public static IServiceCollection AddUsage(this IServiceCollection services) => services
        .AddSingleton<UsageBook>().AddSingleton<UsageWriter>().AddSingleton<UsageService>().AddSingleton<UsageDrift>().AddSingleton<UsageMeters>().AddSingleton<NodeUsage>()
        .AddHostedService(provider => provider.GetRequiredService<UsageWriter>())
        .AddHostedService(provider => provider.GetRequiredService<UsageDrift>());

    /// <summary>Maps <c>/api/usage</c>.</summary>
    public static void MapUsage(this IEndpointRouteBuilder api)
    {
        api.ServiceProvider.GetRequiredService<UsageMeters>();
        api.MapGet("/usage", GetAsync).WithTags("Usage").AdminOnly()
            .WithName("GetUsage").WithSummary("Read what was used, by key, deployment, owner and day.")
            .WithDescription("Days are those of UTC, from and to included; without them the last 30. group_by takes key, deployment, owner and day, separated by "
                + "commas. format=csv, or Accept: text/csv, answers a table for spreadsheets.")
            .Produces<UsageRead>().Produces<string>(StatusCodes.Status200OK, "text/csv").ProducesValidationProblem();
    }

    private static async Task<IResult> GetAsync(
        HttpRequest request, UsageService usage, CancellationToken cancellationToken,
        string? from = null, string? to = null, [FromQuery(Name = "group_by")] string? groupBy = null,
        [FromQuery(Name = "key_id")] int? keyId = null, [FromQuery(Name = "deployment_id")] int? deploymentId = null, string? owner = null, string? format = null)
    {
        if (format is not (null or "json" or "csv"))
            return Core.Failure.Invalid("format", "must be json or csv.").ToProblem();
        var isCsv = format == "csv" || (format is null && request.Headers.Accept.ToString().StartsWith("text/csv", StringComparison.OrdinalIgnoreCase));
        var read = await usage.ReadAsync(new UsageQuery(from, to, groupBy, keyId, deploymentId, owner), cancellationToken);
        return read.Match<IResult>(
            found => isCsv ? TypedResults.Text(UsageService.ToCsv(found), "text/csv", Encoding.UTF8) : TypedResults.Ok(found),
            failure => failure.ToProblem());
    }
}
