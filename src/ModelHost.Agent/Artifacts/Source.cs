using ModelHost.Agent.Downloads;

namespace ModelHost.Agent.Artifacts;

/// <summary>What an address stands for.</summary>
internal abstract record Source
{
    private Source()
    {
    }

    /// <summary>What there is to download for it.</summary>
    public virtual IReadOnlyList<RemoteFile> Parts => [];

    /// <summary>Files to be downloaded.</summary>
    /// <param name="Items">The files.</param>
    /// <param name="IsFolder">Whether they are a folder together, so that a path given is that folder's.</param>
    public sealed record Files(IReadOnlyList<RemoteFile> Items, bool IsFolder) : Source
    {
        /// <inheritdoc/>
        public override IReadOnlyList<RemoteFile> Parts => Items;
    }

    /// <summary>The layers of an image, to be unpacked one over the other.</summary>
    /// <param name="Layers">From the lowest on.</param>
    /// <param name="Digest">Of the manifest, <c>sha256:…</c>.</param>
    public sealed record Image(IReadOnlyList<RemoteFile> Layers, string Digest) : Source
    {
        /// <inheritdoc/>
        public override IReadOnlyList<RemoteFile> Parts => Layers;
    }

    /// <summary>A file or folder of this machine.</summary>
    /// <param name="Path">Absolute, without links.</param>
    public sealed record Local(string Path) : Source;

    /// <summary>An image that was saved to a file of this machine.</summary>
    /// <param name="Path">Absolute, without links.</param>
    public sealed record SavedImage(string Path) : Source;
}
