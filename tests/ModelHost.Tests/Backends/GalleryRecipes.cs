using ModelHost.Core.Backends;
using ModelHost.Core.Galleries;
using ModelHost.TestKit;

namespace ModelHost.Tests.Backends;

/// <summary>The recipes of the gallery that every build has.</summary>
internal static class GalleryRecipes
{
    /// <summary>All of them, by name, as an installation reads them.</summary>
    public static IReadOnlyDictionary<string, BackendRecipe> Read()
    {
        using var text = new StreamReader(Path.Combine(RealDocker.RepositoryRoot, "src", "ModelHost", "Features", "Galleries", "Catalogue", "backends.yaml"));
        return GalleryIndex.Parse(text).Entries.Where(entry => entry.Recipe is not null).ToDictionary(entry => entry.Name, entry => RecipeRules.Read(entry.Name, entry.Recipe!.ToJsonString()));
    }

    /// <summary>One of them, or of those that need no gallery.</summary>
    public static BackendRecipe Of(string name) => BackendCatalogue.BuiltIn.GetValueOrDefault(name) ?? Read()[name];
}
