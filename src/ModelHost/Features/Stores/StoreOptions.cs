using System.ComponentModel.DataAnnotations;

namespace ModelHost.Features.Stores;

/// <summary>What the vector stores may take. Section <c>Stores</c>.</summary>
public sealed class StoreOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Stores";

    /// <summary>Largest request body in bytes. Default 15 MiB, LocalAI's own limit.</summary>
    [Range(1024, 1024L * 1024 * 1024)]
    public long MaxRequestBytes { get; set; } = 15L * 1024 * 1024;

    /// <summary>Bytes of memory that the keys and values of all stores together may take. Default 4 GiB.</summary>
    [Range(1024L * 1024, long.MaxValue)]
    public long MaxBytes { get; set; } = 4L * 1024 * 1024 * 1024;

    /// <summary>Number of stores. Default 256.</summary>
    [Range(1, 100_000)]
    public int MaxStores { get; set; } = 256;
}
