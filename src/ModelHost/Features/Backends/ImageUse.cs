using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.Features.Deployments;

namespace ModelHost.Features.Backends;

/// <summary>Tells what is recorded of a node that wants an image of it. What its engine of containers wants with it, the node says itself.</summary>
internal static class ImageUse
{
    /// <summary>Why an image stays, as far as that is on record; null: nothing wants it.</summary>
    /// <param name="image">Its name.</param>
    /// <param name="deployments">The deployments of the node, at rest or not.</param>
    /// <param name="has">Its backends, but for those that are about to go.</param>
    public static string? Reason(string image, IEnumerable<RecordedDeployment> deployments, IReadOnlyCollection<BackendHere> has)
    {
        var ids = deployments.Where(one => Wants(one, image, has)).Select(one => one.Id).ToArray();
        return ids.Length > 0 ? $"{(ids.Length == 1 ? "deployment" : "deployments")} {string.Join(", ", ids)} {(ids.Length == 1 ? "is" : "are")} started from it"
            : has.FirstOrDefault(here => here.Form == BackendForm.Image && here.Uri == image) is { } other ? $"it is backend {other.Name}" : null;
    }

    private static bool Wants(RecordedDeployment one, string image, IReadOnlyCollection<BackendHere> has)
    {
        if (BackendCatalogue.Of(one.Spec) is not { Image.Length: > 0 } recipe)
            return false;
        if (one.Spec.Recipe is not null)
            return recipe.Image == image; // as it was installed
        var own = has.FirstOrDefault(here => here.Form == BackendForm.BuiltIn && here.Name == recipe.Name);
        if (ImageName.Repository(image) != ImageName.Repository(own?.Uri ?? recipe.Image))
            return false;
        var tag = ImageName.Tag(image);
        if (one.Spec.EngineVersion is { Length: > 0 } version)
            return EngineImage.Tag(version) == tag;
        // one without a version of its own takes the newest release, and offline the newest that is there
        return (own is not null && ImageName.Tag(own.Uri) == tag) || (one.IsActive && one.EngineVersion is { Length: > 0 } last && EngineImage.Tag(last) == tag);
    }
}
