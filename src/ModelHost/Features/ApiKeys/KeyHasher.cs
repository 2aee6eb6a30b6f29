using System.Security.Cryptography;
using ModelHost.Core.Access;
using ModelHost.Hosting;

namespace ModelHost.Features.ApiKeys;

/// <summary>
/// Hashes API keys with HMAC-SHA-256 and a secret of this server, the pepper: what is in the database is of no use without the file
/// <c>keys/api-key-pepper</c> of the data folder.
/// </summary>
internal sealed class KeyHasher
{
    private const string File = "keys/api-key-pepper";
    private const int PepperBytes = 32;
    private readonly byte[] _pepper;

    /// <summary>Reads the pepper, or makes it.</summary>
    /// <exception cref="DataFolderException">There is one, but it is not whole.</exception>
    public KeyHasher(DataFolder folder)
    {
        if (folder.Read(File) is not { } text)
        {
            _pepper = RandomNumberGenerator.GetBytes(PepperBytes);
            folder.WriteSecret(File, Convert.ToHexStringLower(_pepper));
            IsNew = true;
            return;
        }
        _pepper = new byte[PepperBytes];
        if (Convert.FromHexString(text, _pepper, out var read, out var written) != System.Buffers.OperationStatus.Done || written != PepperBytes || read != text.Length)
            throw new DataFolderException($"{folder.File(File)} does not hold {2 * PepperBytes} hexadecimal digits; put it back from a backup, or take it away and make all API keys anew");
    }

    /// <summary>The secret, for the nodes: they check keys as this server does.</summary>
    public byte[] Pepper => _pepper;

    /// <summary>Whether the pepper was made just now, so that no key made before can match.</summary>
    public bool IsNew { get; }

    /// <summary>The hash of a key as it is stored, in hexadecimal.</summary>
    public string Hash(string key)
    {
        Span<byte> hash = stackalloc byte[KeyHash.Length];
        KeyHash.Compute(_pepper, key, hash);
        return Convert.ToHexStringLower(hash);
    }
}
