using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;
using ModelHost.Data;
using ModelHost.Features.Galleries;

namespace ModelHost.Features.Backends;

/// <summary>How a deployment's engine is started.</summary>
/// <param name="Recipe">Under the name that was asked for.</param>
/// <param name="Carried">What the deployment carries of it; null: every node knows the recipe.</param>
internal sealed record LaunchRecipe(BackendRecipe Recipe, JsonElement? Carried)
{
    /// <summary>The version that its image's tag says; empty: it has none, or the recipe leaves it open.</summary>
    public string Version => Carried is null ? "" : EngineImage.VersionOf(ImageName.Tag(Recipe.Image));
}

/// <summary>Finds the recipes that deployments ask for by name: those of every build, and those of backends that were installed on their node.</summary>
internal sealed class BackendRecipes(Database database)
{
    /// <summary>Finds one.</summary>
    /// <param name="nodeId">The node that is to start it.</param>
    /// <param name="name">Its name, the name that several builds answer to, or that of the one that stands for it.</param>
    /// <param name="version">The tag of its image that was asked for; empty: the one that was installed.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async Task<Result<LaunchRecipe>> FindAsync(int nodeId, string name, string version, CancellationToken cancellationToken)
    {
        if (BackendCatalogue.BuiltIn.ContainsKey(name))
            return Choose([], name, version);
        await using var db = await database.OpenAsync(cancellationToken);
        return Choose(await db.InstalledBackends.AsNoTracking().Where(row => row.NodeId == nodeId).OrderBy(row => row.Name).ToListAsync(cancellationToken), name, version);
    }

    /// <summary>Finds one among what is installed on a node, or would be.</summary>
    /// <param name="rows">What is installed, by name.</param>
    /// <param name="name">Its name, the name that several builds answer to, or that of the one that stands for it.</param>
    /// <param name="version">The tag of its image that was asked for; empty: the one that was installed.</param>
    public static Result<LaunchRecipe> Choose(IReadOnlyList<InstalledBackend> rows, string name, string version)
    {
        if (BackendCatalogue.Find(name) is not { } known)
            return Failure.Invalid("backend", $"is none of {string.Join(", ", BackendCatalogue.BuiltIn.Keys.Order())}, and no name of an installed backend");
        if (BackendCatalogue.BuiltIn.ContainsKey(name))
            return new LaunchRecipe(known, null);
        var found = rows.FirstOrDefault(row => row.Name == name) ?? rows.FirstOrDefault(row => row.Alias == name);
        if (found is { MetaBackendFor: { Length: > 0 } build })
        {
            // one that stands for a backend of every build
            if (BackendCatalogue.BuiltIn.GetValueOrDefault(build) is { } own)
                return new LaunchRecipe(own, null);
            found = rows.FirstOrDefault(row => row.Name == build);
        }
        // without one it is a folder of LocalAI's protocol, and whether the node has it the node tells
        if (found is null || found.Recipe.Length == 0 || GalleryJson.Read<BackendDetails>(found.Details).Form == BackendForm.Folder)
            return new LaunchRecipe(known, null);
        try
        {
            var carried = Exact(found, version);
            return new LaunchRecipe(RecipeRules.Read(name, carried.GetRawText()), carried);
        }
        catch (RecipeException e)
        {
            return new Failure(FailureKind.Conflict, "backend.recipe", $"backend '{found.Name}' on the node cannot be started: {e.Message}", "backend");
        }
    }

    /// <summary>The recipe with the image that was installed in the place of that of its gallery, which may be another one tomorrow.</summary>
    private static JsonElement Exact(InstalledBackend installed, string version)
    {
        JsonNode? recipe;
        try
        {
            recipe = JsonNode.Parse(installed.Recipe);
        }
        catch (JsonException e)
        {
            throw new RecipeException(e.Message, e);
        }
        if (recipe is not JsonObject whole)
            throw new RecipeException("it is no object");
        if (GalleryJson.Read<BackendDetails>(installed.Details).Form == BackendForm.Image)
            whole["image"] = version.Length > 0 ? $"{ImageName.Repository(installed.Uri)}:{ImageName.TagOf(installed.Uri, version)}" : installed.Uri;
        return JsonSerializer.SerializeToElement(whole);
    }
}
