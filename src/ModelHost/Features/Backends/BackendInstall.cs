using ModelHost.Features.Galleries;

namespace ModelHost.Features.Backends;

/// <summary>A job's request to install or upgrade a backend, as it is stored.</summary>
internal sealed record BackendInstall
{
    /// <summary>Entry of a gallery; empty: <see cref="Uri"/> says where it comes from.</summary>
    public string Id { get; init; } = "";

    public string Uri { get; init; } = "";

    /// <summary>Of one that comes from an address: its name.</summary>
    public string Name { get; init; } = "";

    public string Alias { get; init; } = "";

    /// <summary>Release or tag of an image; empty: what the gallery says.</summary>
    public string Version { get; init; } = "";

    /// <summary>Whether it is installed anew where it is.</summary>
    public bool Force { get; init; }

    /// <summary>Whether it is an upgrade: of the nodes that have it, unless <see cref="Nodes"/> says which.</summary>
    public bool IsUpgrade { get; init; }

    /// <summary>Ids of the nodes; empty: of an upgrade, those that have it.</summary>
    public int[] Nodes { get; init; } = [];

    /// <summary>Galleries that are looked at in place of those that are known; null: those that are known.</summary>
    public GalleryRead[]? Galleries { get; init; }
}

/// <summary>A job's request to delete a backend, as it is stored.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Nodes">Ids of the nodes; empty: those that have it.</param>
/// <param name="Version">The one version of it that is meant, where it is an image; empty: the backend itself.</param>
internal sealed record BackendDeletion(string Name, int[] Nodes, string Version = "");
