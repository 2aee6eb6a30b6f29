using System.Text.Json.Nodes;

namespace ModelHost.Core.Galleries;

/// <summary>A file that an entry needs.</summary>
/// <param name="Filename">Its path below the models folder, as the gallery gives it; not checked yet.</param>
/// <param name="Uri">Where it comes from.</param>
/// <param name="Sha256">Its hash in hexadecimal digits; empty: none is given.</param>
public sealed record GalleryFile(string Filename, string Uri, string Sha256);

/// <summary>A text that is stored beside a model.</summary>
/// <param name="Name">Its name without extension.</param>
/// <param name="Content">The text.</param>
public sealed record PromptTemplate(string Name, string Content);

/// <summary>Something that can be installed, as a gallery describes it. Nothing in it is checked yet but its form.</summary>
public sealed record GalleryEntry
{
    /// <summary>Its name, unique within its gallery whatever the letter case.</summary>
    public string Name { get; init; } = "";

    /// <summary>Where the configuration file lies that the entry starts from; empty: nowhere.</summary>
    public string Url { get; init; } = "";

    /// <summary>What it is, for people.</summary>
    public string Description { get; init; } = "";

    /// <summary>Its licence.</summary>
    public string License { get; init; } = "";

    /// <summary>Address of a picture.</summary>
    public string Icon { get; init; } = "";

    /// <summary>How large it is, for people.</summary>
    public string Size { get; init; } = "";

    /// <summary>Pages about it.</summary>
    public IReadOnlyList<string> Urls { get; init; } = [];

    /// <summary>Words to find it by.</summary>
    public IReadOnlyList<string> Tags { get; init; } = [];

    /// <summary>The files that it needs.</summary>
    public IReadOnlyList<GalleryFile> Files { get; init; } = [];

    /// <summary>Merged over the configuration.</summary>
    public JsonObject? Overrides { get; init; }

    /// <summary>The configuration itself, where there is no <see cref="Url"/>.</summary>
    public JsonObject? ConfigFile { get; init; }

    /// <summary>Templates of its prompts.</summary>
    public IReadOnlyList<PromptTemplate> PromptTemplates { get; init; } = [];

    /// <summary>Of a backend: the name that several builds answer to.</summary>
    public string Alias { get; init; } = "";

    /// <summary>Of a backend: where it comes from, such as an image.</summary>
    public string Uri { get; init; } = "";

    /// <summary>Of a backend: where else it may come from.</summary>
    public IReadOnlyList<string> Mirrors { get; init; } = [];

    /// <summary>Of a backend: its version; empty: the gallery knows none.</summary>
    public string Version { get; init; } = "";

    /// <summary>Of a backend: hash of the archive at <see cref="Uri"/>.</summary>
    public string Sha256 { get; init; } = "";

    /// <summary>Of a backend: the build for each capability of a node.</summary>
    public IReadOnlyDictionary<string, string> Capabilities { get; init; } = new Dictionary<string, string>();

    /// <summary>Of a backend: how it is started and watched, as <see cref="Backends.BackendRecipe"/>; null: as LocalAI's are.</summary>
    public JsonObject? Recipe { get; init; }

    /// <summary>Whether it stands for one build of several, chosen for each node.</summary>
    public bool IsMeta => Capabilities.Count > 0 && Uri.Length == 0;

    /// <summary>Whether there is nothing in it to install.</summary>
    public bool IsEmpty => Url.Length == 0 && Uri.Length == 0 && ConfigFile is null && Overrides is null && Recipe is null && Files.Count == 0 && Capabilities.Count == 0;
}
