using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using ModelHost.Access;
using ModelHost.Common;

namespace ModelHost.Features.ApiKeys;

/// <summary>The keys that close the gateway.</summary>
internal static class ApiKeysFeature
{
    /// <summary>Adds them; none is right until <see cref="ApiKeyService.LoadAsync"/>.</summary>
    public static IServiceCollection AddApiKeys(this IServiceCollection services) =>
        services.AddSingleton<KeyHasher>().AddSingleton<ApiKeyRing>().AddSingleton<ApiKeyService>().AddHostedService<ApiKeyUse>();

    /// <summary>Maps <c>/api/api-keys</c>.</summary>
    public static void MapApiKeys(this IEndpointRouteBuilder api)
    {
        var group = api.MapGroup("/api-keys").WithTags("API Keys");
        group.MapGet("/", ListAsync).WithName("ListApiKeys").WithSummary("List all API keys, newest first; temporary ones until their end.").AdminOnly();
        group.MapPost("/", CreateAsync).WithName("CreateApiKey").WithSummary("Create an API key, permanent or temporary.")
            .WithDescription("The key itself is in this answer and nowhere else. With the first permanent key `/v1` is closed to requests without one. "
                + "A permanent API key may call this too, and makes temporary keys that can do no more than itself and go with it.")
            .ForKeyMakers().ProducesValidationProblem().ProducesProblem(StatusCodes.Status403Forbidden).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapPatch("/{id:int}", UpdateAsync).WithName("UpdateApiKey").WithSummary("Change a permanent key; fields that are not given stay, and null takes a limit away.")
            .AdminOnly().ProducesValidationProblem().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
        group.MapDelete("/{id:int}", DeleteAsync).WithName("DeleteApiKey").WithSummary("Revoke and delete a key with all that it has made, from the next request on.")
            .WithDescription("The last permanent key goes with `acknowledge_open_gateway=true` alone, as `/v1` asks for none without it.")
            .AdminOnly().ProducesProblem(StatusCodes.Status404NotFound).ProducesProblem(StatusCodes.Status409Conflict);
    }

    private static async Task<Ok<IReadOnlyList<ApiKeyRead>>> ListAsync(ApiKeyService keys, CancellationToken cancellationToken) =>
        TypedResults.Ok(await keys.ListAsync(cancellationToken));

    private static async Task<Results<Ok<ApiKeyCreated>, ProblemHttpResult>> CreateAsync(
        CreateApiKeyRequest request, ApiKeyService keys, HttpContext context, CancellationToken cancellationToken)
    {
        context.Response.Headers.CacheControl = "no-store";
        return (await keys.CreateAsync(request, context.Features.Get<ApiKeyFeature>()?.KeyId, cancellationToken)).ToAnswer();
    }

    private static async Task<Results<Ok<ApiKeyRead>, ProblemHttpResult>> UpdateAsync(
        int id, UpdateApiKeyRequest request, ApiKeyService keys, CancellationToken cancellationToken) =>
        (await keys.UpdateAsync(id, request, cancellationToken)).ToAnswer();

    private static async Task<Results<NoContent, ProblemHttpResult>> DeleteAsync(
        int id, [FromQuery(Name = "acknowledge_open_gateway")] bool? acknowledgeOpenGateway, ApiKeyService keys, CancellationToken cancellationToken) =>
        await keys.DeleteAsync(id, acknowledgeOpenGateway == true, cancellationToken) is { } failure ? failure.ToProblem() : TypedResults.NoContent();
}
