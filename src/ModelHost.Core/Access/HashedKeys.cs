using System.Buffers.Binary;
using System.Collections.Frozen;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace ModelHost.Core.Access;

/// <summary>Finds API keys by their texts, of which only hashes are kept: HMAC-SHA-256 under a secret, the pepper. Immutable.</summary>
/// <typeparam name="T">What is known of a key.</typeparam>
public sealed class HashedKeys<T> where T : class
{
    private readonly byte[] _pepper;
    private readonly FrozenDictionary<ulong, (byte[] Hash, T Key)[]> _byHash;

    /// <summary>Takes the keys.</summary>
    /// <param name="pepper">The secret that they were hashed with.</param>
    /// <param name="keys">Their hashes, of <see cref="KeyHash.Length"/> bytes each.</param>
    public HashedKeys(byte[] pepper, IEnumerable<(byte[] Hash, T Key)> keys)
    {
        _pepper = pepper;
        _byHash = keys.GroupBy(key => Short(key.Hash)).ToFrozenDictionary(group => group.Key, group => group.ToArray());
    }

    /// <summary>The key that a text is; null: none.</summary>
    public T? Find(ReadOnlySpan<char> text)
    {
        if (!ApiKeyText.IsWellFormed(text))
            return null;
        Span<byte> hash = stackalloc byte[KeyHash.Length];
        KeyHash.Compute(_pepper, text, hash);
        // what the time of the lookup tells is about a hash that nobody without the pepper can make
        if (!_byHash.TryGetValue(Short(hash), out var candidates))
            return null;
        foreach (var (known, key) in candidates)
        {
            if (CryptographicOperations.FixedTimeEquals(known, hash))
                return key;
        }
        return null;
    }

    private static ulong Short(ReadOnlySpan<byte> hash) => MemoryMarshal.Read<ulong>(hash);
}

/// <summary>Hashes API keys.</summary>
public static class KeyHash
{
    /// <summary>Length of a hash in bytes.</summary>
    public const int Length = HMACSHA256.HashSizeInBytes;

    /// <summary>The beginning of a hash: enough to tell a key from another that has its id, and of no use to find the key.</summary>
    public static ulong Mark(ReadOnlySpan<byte> hash) => BinaryPrimitives.ReadUInt64LittleEndian(hash);

    /// <summary>Hashes a key.</summary>
    /// <param name="pepper">The secret.</param>
    /// <param name="key">A text of at most <see cref="ApiKeyText.MaxLength"/> ASCII characters.</param>
    /// <param name="hash">Takes <see cref="Length"/> bytes.</param>
    public static void Compute(ReadOnlySpan<byte> pepper, ReadOnlySpan<char> key, Span<byte> hash)
    {
        Span<byte> bytes = stackalloc byte[ApiKeyText.MaxLength];
        HMACSHA256.HashData(pepper, bytes[..Encoding.ASCII.GetBytes(key, bytes)], hash);
    }
}
