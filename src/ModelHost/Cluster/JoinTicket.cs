using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;

namespace ModelHost.Cluster;

/// <summary>What a join token says: a secret for the control plane, and by which authority the control plane is known.</summary>
/// <param name="Secret">160 random bits.</param>
/// <param name="Authority">SHA-256 of the cluster's CA.</param>
internal sealed record JoinTicket(string Secret, byte[] Authority)
{
    private const string Prefix = "mh_join_";
    private const int SecretBytes = 20;

    /// <summary>Makes a fresh one.</summary>
    public static JoinTicket Make(byte[] authority) => new(Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(SecretBytes)), authority);

    /// <summary>Reads one; null: it is none.</summary>
    public static JoinTicket? Parse(string token)
    {
        if (!token.StartsWith(Prefix, StringComparison.Ordinal) || token[Prefix.Length..].Split('.') is not [var secret, var authority])
            return null;
        return IsBytes(secret, SecretBytes) && IsBytes(authority, SHA256.HashSizeInBytes) ? new JoinTicket(secret, Base64Url.DecodeFromChars(authority)) : null;
    }

    /// <summary>What the control plane keeps of a secret.</summary>
    public static string Hash(string secret) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(secret)));

    /// <summary>The token as it is handed over. It is never logged.</summary>
    public string ToToken() => $"{Prefix}{Secret}.{Base64Url.EncodeToString(Authority)}";

    public override string ToString() => nameof(JoinTicket);

    private static bool IsBytes(string text, int count) => Base64Url.IsValid(text, out var length) && length == count;
}
