using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using ModelHost.Common;
using ModelHost.Core;

namespace ModelHost.Features.Galleries;

/// <summary>The routes of galleries themselves.</summary>
internal static class GalleryEndpoints
{
    /// <summary>Maps those of models.</summary>
    public static void MapModelGalleries(this RouteGroupBuilder models)
    {
        models.MapGet("/galleries", ListModelsAsync).WithName("ListModelGalleries").WithSummary("List the galleries that models are installed from.")
            .WithDescription("A gallery that could not be read the last time has the reason as `error`.").Produces<GalleryState[]>().ProducesLocalAiErrors();
        models.MapPost("/galleries", AddAsync).WithName("AddModelGallery").WithSummary("Add a gallery of models.").DisableValidation()
            .Produces<GalleryState[]>().ProducesLocalAiErrors();
        models.MapDelete("/galleries", RemoveAsync).WithName("RemoveModelGallery").WithSummary("Take a gallery of models away; what was installed from it stays.").DisableValidation()
            .Produces<GalleryState[]>().ProducesLocalAiErrors();
    }

    /// <summary>Maps those of backends.</summary>
    public static void MapBackendGalleries(this RouteGroupBuilder backends) =>
        backends.MapGet("/galleries", ListBackendsAsync).WithName("ListBackendGalleries").WithSummary("List the galleries that backends are installed from.")
            .Produces<GalleryState[]>().ProducesLocalAiErrors();

    /// <summary>Says which errors a route answers with.</summary>
    public static RouteHandlerBuilder ProducesLocalAiErrors(this RouteHandlerBuilder route)
    {
        foreach (var status in (int[])[400, 401, 404, 415, 500])
            route.Produces<LocalAiErrorBody>(status);
        return route;
    }

    /// <summary>A failure in LocalAI's shape: what it refuses with 500, it refuses so here too.</summary>
    public static IResult ToLocalAi(this Failure failure) => LocalAiErrors.ToAnswer(
        failure.Code.StartsWith("gallery.", StringComparison.Ordinal) ? StatusCodes.Status500InternalServerError : failure.Kind.Status(),
        failure is { Kind: FailureKind.Invalid, Field: { Length: > 0 } field } ? $"{field}: {failure.Detail}" : failure.Detail);

    private static async Task<Ok<GalleryState[]>> ListModelsAsync(GalleryBook book, GalleryReader reader, CancellationToken cancellationToken) =>
        TypedResults.Ok(Show(await book.ListAsync(GalleryKind.Models, cancellationToken), reader));

    private static async Task<Ok<GalleryState[]>> ListBackendsAsync(GalleryBook book, GalleryReader reader, CancellationToken cancellationToken) =>
        TypedResults.Ok(Show(await book.ListAsync(GalleryKind.Backends, cancellationToken), reader));

    private static async Task<IResult> AddAsync(GalleryAdd request, GalleryBook book, GalleryReader reader, CancellationToken cancellationToken) =>
        (await book.AddAsync(GalleryKind.Models, request, cancellationToken)).Match(galleries => TypedResults.Ok(Show(galleries, reader)), ToLocalAi);

    private static async Task<IResult> RemoveAsync([FromBody] GalleryRemove request, GalleryBook book, GalleryReader reader, CancellationToken cancellationToken) =>
        (await book.RemoveAsync(GalleryKind.Models, request, cancellationToken)).Match(galleries => TypedResults.Ok(Show(galleries, reader)), ToLocalAi);

    private static GalleryState[] Show(GalleryRead[] galleries, GalleryReader reader) =>
        Array.ConvertAll(galleries, gallery => new GalleryState(gallery.Url, gallery.Mirrors, gallery.Name, gallery.Verification, reader.Peek(gallery).Error));
}
