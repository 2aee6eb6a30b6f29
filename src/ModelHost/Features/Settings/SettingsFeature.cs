using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using Microsoft.OpenApi;
using ModelHost.Access;
using ModelHost.Common;

namespace ModelHost.Features.Settings;

/// <summary>Settings that act without a restart.</summary>
internal static class SettingsFeature
{
    /// <summary>Adds them; they are what the configuration says until <see cref="LiveSettings.LoadAsync"/>.</summary>
    public static IServiceCollection AddRuntimeSettings(this IServiceCollection services)
    {
        services.AddCheckedOptions<RuntimeSettings>(RuntimeSettings.Section);
        return services.AddSingleton(provider => ActivatorUtilities.CreateInstance<LiveSettings>(
            provider, provider.GetRequiredService<IOptions<RuntimeSettings>>().Value, Names(provider.GetRequiredService<IConfiguration>())));
    }

    /// <summary>Maps <c>/api/settings</c>.</summary>
    public static void MapSettings(this IEndpointRouteBuilder api)
    {
        var group = api.MapGroup("/settings").WithTags("Settings").AdminOnly();
        group.MapGet("/", Read).WithName("GetSettings").WithSummary("Read all runtime settings with their effective values.");
        group.MapGet("/sources", Sources).WithName("GetSettingSources")
            .WithSummary("Read where the value of each setting comes from: database, configuration or default.");
        group.MapPut("/", UpdateAsync).WithName("UpdateSettings")
            .WithSummary("Change the settings that are given; the others stay.")
            .WithDescription("Takes effect at once. One value that is not allowed, and nothing is changed. `null` changes nothing, except of `default_max_failed_restarts`.")
            .AddOpenApiOperationTransformer(async (operation, context, cancellationToken) => operation.RequestBody = new OpenApiRequestBody
            {
                Required = true,
                Content = new Dictionary<string, OpenApiMediaType>
                {
                    ["application/json"] = new() { Schema = await context.GetOrCreateSchemaAsync(typeof(RuntimeSettings), null, cancellationToken) },
                },
            })
            .ProducesValidationProblem();
    }

    private static Ok<RuntimeSettings> Read(LiveSettings settings) => TypedResults.Ok(settings.Current);

    private static Ok<IReadOnlyDictionary<string, string>> Sources(LiveSettings settings) => TypedResults.Ok(settings.Sources());

    private static async Task<Results<Ok<RuntimeSettings>, ProblemHttpResult>> UpdateAsync(
        JsonElement body, LiveSettings settings, CancellationToken cancellationToken)
    {
        var update = SettingsUpdate.Read(body);
        return update.Errors.Count > 0
            ? Problems.ToProblem(update.Errors)
            : TypedResults.Ok(await settings.SaveAsync(update.Values, cancellationToken));
    }

    private static HashSet<string> Names(IConfiguration configuration) =>
        configuration.GetSection(RuntimeSettings.Section).GetChildren().Select(child => child.Key).ToHashSet(StringComparer.OrdinalIgnoreCase);
}
