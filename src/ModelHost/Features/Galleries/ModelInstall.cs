using System.Text.Json;
using ModelHost.Core.Galleries;

namespace ModelHost.Features.Galleries;

/// <summary>A job's request to install a model, as it is stored.</summary>
/// <param name="Request">What was asked for, without the values of variables.</param>
/// <param name="Nodes">Ids of the nodes.</param>
/// <param name="Variables">The values, sealed; null: none.</param>
/// <param name="Decided">What it came to, once the job has passed its point of no return; galleries may say something else by now.</param>
internal sealed record ModelInstall(ModelApply Request, int[] Nodes, string? Variables, DecidedModel? Decided = null);

/// <summary>What a request for a model came to.</summary>
/// <param name="Model">The model.</param>
/// <param name="Gallery">The gallery that it is from; empty: none.</param>
/// <param name="EntryName">The gallery's entry; empty: none.</param>
/// <param name="Metadata">What is said of it, as <see cref="InstalledModel.Metadata"/>.</param>
internal sealed record DecidedModel(ComposedModel Model, string Gallery, string EntryName, string Metadata);

/// <summary>A node that has an installed model.</summary>
/// <param name="NodeId">Its id in the API.</param>
/// <param name="Folder">Name of the model's folder there; empty: the engine loads it itself.</param>
/// <param name="DeploymentId">Its deployment there.</param>
internal sealed record InstalledNode(int NodeId, string Folder, int DeploymentId);

/// <summary>How requests and installed things are stored.</summary>
internal static class GalleryJson
{
    /// <summary>The options.</summary>
    public static JsonSerializerOptions Options { get; } = new(JsonSerializerDefaults.Web) { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    /// <summary>Writes.</summary>
    public static string Write<T>(T value) => JsonSerializer.Serialize(value, Options);

    /// <summary>Reads.</summary>
    public static T Read<T>(string json) => JsonSerializer.Deserialize<T>(json, Options) ?? throw new JsonException("there is nothing");

    /// <summary>The text; null, which is left out of answers, when there is none.</summary>
    public static string? Said(string text) => text.Length > 0 ? text : null;

    /// <summary>The list; null, which is left out of answers, when it is empty.</summary>
    public static IReadOnlyList<T>? Any<T>(IReadOnlyList<T> list) => list.Count > 0 ? list : null;
}

/// <summary>The entry that an id names.</summary>
internal sealed record FoundEntry(GalleryRead Gallery, GalleryEntry Entry);
