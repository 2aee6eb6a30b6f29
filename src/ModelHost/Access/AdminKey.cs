using System.Security.Cryptography;
using System.Text;
using ModelHost.Hosting;

namespace ModelHost.Access;

/// <summary>
/// The administrator's key: made at first start, written once into <c>admin-key</c> in the data folder for its owner to read, and kept
/// as a hash, so that the file may be taken away.
/// </summary>
internal sealed class AdminKey
{
    private const string KeyFile = "admin-key";
    private const string HashFile = "admin-key.sha256";
    private const string Prefix = "mh_admin_";
    private readonly byte[] _hash;

    public AdminKey(DataFolder folder)
    {
        if (folder.Read(HashFile) is { Length: > 0 } hash)
        {
            if (hash.Length != 2 * SHA256.HashSizeInBytes || !hash.All(char.IsAsciiHexDigit))
                throw new DataFolderException(
                    $"{folder.File(HashFile)} does not hold the hash of an admin key. Delete it: then the key in {KeyFile} counts, or a new one if that is gone too");
            _hash = Convert.FromHexString(hash);
            return;
        }
        var key = folder.Read(KeyFile) is { Length: > 0 } known ? known : Prefix + Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(20));
        folder.WriteSecret(KeyFile, key);
        _hash = Hash(key);
        folder.WriteSecret(HashFile, Convert.ToHexStringLower(_hash));
    }

    /// <summary>Its SHA-256, by which nodes know it.</summary>
    public ReadOnlySpan<byte> Hashed => _hash;

    /// <summary>Whether this is the key; takes the same time for every wrong one.</summary>
    public bool Matches(string key) => CryptographicOperations.FixedTimeEquals(Hash(key), _hash);

    private static byte[] Hash(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));
}
