namespace ModelHost.Agent.Downloads;

/// <summary>A file of a web server.</summary>
/// <param name="Url">Its address.</param>
/// <param name="Path">Where it goes in what it is a part of.</param>
internal sealed record RemoteFile(Uri Url, string Path)
{
    /// <summary>Its hash in lower-case hexadecimal; empty: unknown.</summary>
    public string Sha256 { get; init; } = "";

    /// <summary>Its size; null: unknown.</summary>
    public long? SizeBytes { get; init; }

    /// <summary>Sent with the request.</summary>
    public IReadOnlyDictionary<string, string> Headers { get; init; } = new Dictionary<string, string>();

    /// <summary>Gets leave to read it where a login is asked for; null: there is no way.</summary>
    public RegistryLogin? Login { get; init; }

    /// <summary>Whether it is refused when it runs code on being loaded.</summary>
    public bool RefusesPickle { get; init; }

    /// <summary>Names what is downloaded, apart from where: two addresses of a known hash are the same file.</summary>
    public string Identity => Sha256.Length > 0 ? Sha256 : Url.AbsoluteUri;
}

/// <summary>What came of a download.</summary>
/// <param name="Path">Where it lies.</param>
/// <param name="Sha256">Its hash.</param>
/// <param name="SizeBytes">Its size.</param>
internal sealed record DownloadedFile(string Path, string Sha256, long SizeBytes);

/// <summary>Hears how far a download is; called many times a second.</summary>
internal interface IDownloadReport
{
    /// <summary>Bytes that are there, and that there will be; null: unknown.</summary>
    void At(long doneBytes, long? totalBytes);

    /// <summary>It did not work and is tried again.</summary>
    void Waits(string why);
}
