using Microsoft.Extensions.Options;
using ModelHost.Access;
using ModelHost.Common;
using ModelHost.Features.Backends;

namespace ModelHost.Features.Galleries;

/// <summary>Models and backends that can be installed, and the jobs that do it.</summary>
internal static class GalleriesFeature
{
    /// <summary>Adds the services.</summary>
    public static IServiceCollection AddGalleries(this IServiceCollection services)
    {
        services.AddCheckedOptions<GalleryOptions>(GalleryOptions.Section);
        services.AddSingleton<IValidateOptions<GalleryOptions>, GalleryOptionsRules>();
        return services.AddSingleton<GallerySources>().AddSingleton<GalleryFetcher>().AddSingleton<GalleryCopies>().AddSingleton<GalleryReader>().AddSingleton<GalleryBook>()
            .AddSingleton<JobBook>().AddSingleton<EntryFinder>().AddSingleton<FileScan>().AddSingleton<NodePulls>().AddSingleton<ModelFiles>().AddSingleton<ModelBook>().AddSingleton<ModelBackends>()
            .AddSingleton<ModelDeployments>().AddSingleton<ModelService>().AddSingleton<IJobHandler, ModelInstallHandler>().AddSingleton<IJobHandler, ModelDeleteHandler>();
    }

    /// <summary>Adds what runs jobs; behind what brings the database up to date.</summary>
    public static IServiceCollection AddJobs(this IServiceCollection services) => services.AddHostedService<JobRunner>().AddHostedService<ModelImport>();

    /// <summary>Maps <c>/models</c> and <c>/backends</c>.</summary>
    public static void MapGalleries(this IEndpointRouteBuilder routes)
    {
        var models = routes.MapLocalAi("/models", AccessRule.Admin).WithTags("Models");
        models.MapModels();
        models.MapModelGalleries();
        models.MapJobs("Model");
        var backends = routes.MapLocalAi("/backends", AccessRule.Admin).WithTags("Backends");
        backends.MapBackends();
        backends.MapBackendGalleries();
        backends.MapJobs("Backend");
    }
}

/// <summary>Checks the galleries of the configuration.</summary>
internal sealed class GalleryOptionsRules(GallerySources sources) : IValidateOptions<GalleryOptions>
{
    public ValidateOptionsResult Validate(string? name, GalleryOptions options)
    {
        var faults = new List<string>();
        foreach (var (key, galleries) in (ReadOnlySpan<(string, List<GallerySource>?)>)[(nameof(options.Models), options.Models), (nameof(options.Backends), options.Backends)])
        {
            foreach (var (index, gallery) in (galleries ?? []).Index())
            {
                var place = $"{GalleryOptions.Section}:{key}:{index}";
                if (!GalleryBook.Name().IsMatch(gallery.Name))
                    faults.Add($"{place}:{nameof(gallery.Name)}={gallery.Name}: holds something other than up to 64 letters, digits and . _ -");
                if (galleries!.Count(other => other.Name.Equals(gallery.Name, StringComparison.OrdinalIgnoreCase)) > 1)
                    faults.Add($"{place}:{nameof(gallery.Name)}={gallery.Name}: is the name of another one too");
                faults.AddRange(gallery.Mirrors.Prepend(gallery.Url).Select(source => sources.Fault(source) is { } fault ? $"{place}: {source} {fault}" : null).OfType<string>());
            }
        }
        return faults.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(faults);
    }
}
