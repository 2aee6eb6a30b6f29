namespace ModelHost.Features.Galleries;

/// <summary>A backend that was installed on a node.</summary>
internal sealed class InstalledBackend
{
    public int Id { get; set; }

    public int NodeId { get; set; }

    /// <summary>Its name, unique on its node.</summary>
    public required string Name { get; set; }

    /// <summary>The name that several builds answer to; empty: none.</summary>
    public string Alias { get; set; } = "";

    /// <summary>Of one that stands for another: the name of the build that was chosen for the node; empty: it is a build itself.</summary>
    public string MetaBackendFor { get; set; } = "";

    /// <summary>The gallery it comes from, and the address of that.</summary>
    public string Gallery { get; set; } = "";

    public string GalleryUrl { get; set; } = "";

    /// <summary>Where it came from: an image, an archive, a folder.</summary>
    public string Uri { get; set; } = "";

    public string Version { get; set; } = "";

    public string Digest { get; set; } = "";

    /// <summary>How it is started and watched, as YAML; empty: as LocalAI's are.</summary>
    public string Recipe { get; set; } = "";

    /// <summary>Whether it came with the node and is not deleted.</summary>
    public bool IsSystem { get; set; }

    /// <summary>What else is kept of it, as JSON.</summary>
    public string Details { get; set; } = "{}";

    public DateTimeOffset InstalledAt { get; set; }
}
