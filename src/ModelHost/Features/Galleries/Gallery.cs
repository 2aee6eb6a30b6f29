namespace ModelHost.Features.Galleries;

/// <summary>What a gallery offers.</summary>
internal enum GalleryKind
{
    /// <summary>Models.</summary>
    Models,
    /// <summary>Backends.</summary>
    Backends,
}

/// <summary>A gallery that was added through the API, or the word that one of the configuration was taken away.</summary>
internal sealed class Gallery
{
    public int Id { get; set; }

    public GalleryKind Kind { get; set; }

    public required string Name { get; set; }

    public required string Url { get; set; }

    /// <summary>JSON array of addresses.</summary>
    public string Mirrors { get; set; } = "[]";

    /// <summary>JSON object that says who must have signed what it offers; null: nobody.</summary>
    public string? Verification { get; set; }

    /// <summary>Whether this is the word that the one of the name is gone.</summary>
    public bool IsRemoved { get; set; }
}
