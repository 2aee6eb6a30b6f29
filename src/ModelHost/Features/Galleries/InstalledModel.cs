namespace ModelHost.Features.Galleries;

/// <summary>A model that was installed from a gallery, an address or a configuration.</summary>
internal sealed class InstalledModel
{
    public int Id { get; set; }

    /// <summary>Its unique name, by which it is served and deleted.</summary>
    public required string Name { get; set; }

    /// <summary><see cref="Name"/> in lower case: names that differ in letter case only are the same.</summary>
    public required string NameKey { get; set; }

    /// <summary>The gallery and the entry it comes from; empty: from an address, or from a configuration.</summary>
    public string Gallery { get; set; } = "";

    public string EntryName { get; set; } = "";

    /// <summary>Name of its backend.</summary>
    public string Backend { get; set; } = "";

    /// <summary>Its configuration as JSON, overrides and all.</summary>
    public required string Config { get; set; }

    /// <summary>What people are told of it (description, license, urls, tags ...), as JSON.</summary>
    public string Metadata { get; set; } = "{}";

    /// <summary>JSON array of its files: path below the models folder, hash, address.</summary>
    public string Files { get; set; } = "[]";

    /// <summary>JSON array of the nodes that hold its files, with their own ids, and its deployment there.</summary>
    public string Nodes { get; set; } = "[]";

    /// <summary>What was asked for, as JSON.</summary>
    public string Request { get; set; } = "{}";

    /// <summary>What later versions keep of it, as JSON.</summary>
    public string Details { get; set; } = "{}";

    public DateTimeOffset InstalledAt { get; set; }
}
