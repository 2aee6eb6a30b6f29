namespace ModelHost.Features.Galleries;

/// <summary>The galleries that are part of this build: there without any network.</summary>
internal static class BuiltInGallery
{
    /// <summary>Address of that of models.</summary>
    public const string Models = "builtin:models";

    /// <summary>Address of that of backends.</summary>
    public const string Backends = "builtin:backends";

    /// <summary>Whether an address is one of theirs.</summary>
    public static bool IsKnown(string source) => source is Models or Backends;

    /// <summary>The text of one.</summary>
    public static byte[] Read(string source)
    {
        var name = $"galleries/{source.Split(':')[1]}.yaml";
        using var stream = typeof(BuiltInGallery).Assembly.GetManifestResourceStream(name) ?? throw new InvalidOperationException($"this build has no {name}");
        using var copy = new MemoryStream();
        stream.CopyTo(copy);
        return copy.ToArray();
    }
}
