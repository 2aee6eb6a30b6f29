using System.ComponentModel;

namespace ModelHost.Features.Stores;

/// <summary>Keys with their values. What is there under a key is replaced.</summary>
internal sealed record StoreSet
{
    [Description("Name of the store; the first set makes it. Default: the unnamed one.")]
    public string? Store { get; init; }

    [Description("Vectors, all of the length of the first one that the store was given.")]
    public IReadOnlyList<float[]?>? Keys { get; init; }

    [Description("One text for each key.")]
    public IReadOnlyList<string?>? Values { get; init; }

    [Description("local-store, embedded-store or nothing; else the backend of a deployment whose model is the store.")]
    public string? Backend { get; init; }
}

/// <summary>Keys to read or to delete.</summary>
internal sealed record StoreKeys
{
    [Description("Name of the store. Default: the unnamed one.")]
    public string? Store { get; init; }

    [Description("Vectors; those that the store does not have are passed over.")]
    public IReadOnlyList<float[]?>? Keys { get; init; }

    [Description("local-store, embedded-store or nothing; else the backend of a deployment whose model is the store.")]
    public string? Backend { get; init; }
}

/// <summary>A vector to find the nearest keys of.</summary>
internal sealed record StoreFind
{
    [Description("Name of the store. Default: the unnamed one.")]
    public string? Store { get; init; }

    [Description("The vector.")]
    public float[]? Key { get; init; }

    [Description("How many keys at most, 1 to 10000.")]
    public int Topk { get; init; }

    [Description("local-store, embedded-store or nothing; else the backend of a deployment whose model is the store.")]
    public string? Backend { get; init; }
}

/// <summary>The keys that were found, in the order of their numbers, and their values.</summary>
internal sealed record StoreEntries(IReadOnlyList<float[]> Keys, IReadOnlyList<string> Values);

/// <summary>The nearest keys, nearest first, with their values and cosine similarities.</summary>
internal sealed record StoreMatches(IReadOnlyList<float[]> Keys, IReadOnlyList<string> Values, IReadOnlyList<float> Similarities);
