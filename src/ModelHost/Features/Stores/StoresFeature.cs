using System.Text;
using Microsoft.AspNetCore.Mvc;
using Microsoft.Extensions.Options;
using ModelHost.Access;
using ModelHost.Common;
using ModelHost.Core;

namespace ModelHost.Features.Stores;

/// <summary>The vector stores that LocalAI's clients know.</summary>
internal static class StoresFeature
{
    /// <summary>Adds the service.</summary>
    public static IServiceCollection AddStores(this IServiceCollection services)
    {
        services.AddCheckedOptions<StoreOptions>(StoreOptions.Section);
        return services.AddSingleton<StoreService>().AddSingleton<BackendStores>();
    }

    /// <summary>Maps <c>/stores</c>.</summary>
    public static void MapStores(this IEndpointRouteBuilder routes)
    {
        var limit = routes.ServiceProvider.GetRequiredService<IOptions<StoreOptions>>().Value.MaxRequestBytes;
        var group = routes.MapLocalAi("/stores", AccessRule.Inference).WithTags("Stores").WithMetadata(new RequestSizeLimitAttribute(limit));
        Describe<StoreSet>(group.MapPost("/set", SetAsync), "SetInStore", "Set keys of a vector store.");
        Describe<StoreKeys>(group.MapPost("/delete", DeleteAsync), "DeleteFromStore", "Delete keys of a vector store.");
        Describe<StoreKeys>(group.MapPost("/get", GetAsync), "GetFromStore", "Read the values of keys of a vector store.").Produces<StoreEntries>();
        Describe<StoreFind>(group.MapPost("/find", FindAsync), "FindInStore", "Find the keys of a vector store that are nearest to a vector.").Produces<StoreMatches>();
    }

    private static RouteHandlerBuilder Describe<TRequest>(RouteHandlerBuilder route, string name, string summary) where TRequest : notnull
    {
        foreach (var status in (int[])[400, 401, 403, 413, 415, 500, 503])
            route.Produces<LocalAiErrorBody>(status);
        return route.WithName(name).WithSummary(summary).Accepts<TRequest>("application/json").DisableValidation();
    }

    private static async Task<IResult> SetAsync(StoreSet request, StoreService stores, BackendStores others, HttpContext context) =>
        await (BackendStores.IsMeant(request.Backend) ? others.SetAsync(context, request) : stores.SetAsync(request, context.RequestAborted)) is { } failure
            ? ToAnswer(failure) : TypedResults.Ok();

    private static async Task<IResult> DeleteAsync(StoreKeys request, StoreService stores, BackendStores others, HttpContext context) =>
        await (BackendStores.IsMeant(request.Backend) ? others.DeleteAsync(context, request) : stores.DeleteAsync(request, context.RequestAborted)) is { } failure
            ? ToAnswer(failure) : TypedResults.Ok();

    private static async Task<IResult> GetAsync(StoreKeys request, StoreService stores, BackendStores others, HttpContext context) =>
        (await (BackendStores.IsMeant(request.Backend) ? others.GetAsync(context, request) : stores.GetAsync(request, context.RequestAborted))).Match(
            found => TypedResults.Ok(new StoreEntries(Keys(found), Values(found))), ToAnswer);

    private static async Task<IResult> FindAsync(StoreFind request, StoreService stores, BackendStores others, HttpContext context) =>
        (await (BackendStores.IsMeant(request.Backend) ? others.FindAsync(context, request) : stores.FindAsync(request, context.RequestAborted))).Match(
            found => TypedResults.Ok(new StoreMatches(Keys(found), Values(found), Array.ConvertAll(found, match => match.Similarity))), ToAnswer);

    private static float[][] Keys(VectorMatch[] found) => Array.ConvertAll(found, match => match.Key);

    private static string[] Values(VectorMatch[] found) => Array.ConvertAll(found, match => Encoding.UTF8.GetString(match.Value));

    // LocalAI answers with 500 to what its store refuses
    private static IResult ToAnswer(Failure failure) =>
        LocalAiErrors.ToAnswer(failure.Kind == FailureKind.Conflict ? StatusCodes.Status500InternalServerError : failure.Kind.Status(), failure.Detail);
}
