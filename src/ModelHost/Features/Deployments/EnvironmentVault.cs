using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.AspNetCore.DataProtection;

namespace ModelHost.Features.Deployments;

/// <summary>Seals the values of environment variables for storage.</summary>
internal sealed class EnvironmentVault(IDataProtectionProvider protection)
{
    private readonly IDataProtector _protector = protection.CreateProtector("ModelHost.Deployments.EnvValues.v1");

    /// <summary>The values, encrypted; null when there are none.</summary>
    public string? Seal(Dictionary<string, string> values) => values.Count == 0 ? null : _protector.Protect(JsonSerializer.Serialize(values));

    /// <summary>The values back; null: the keys that they were sealed with are gone.</summary>
    public Dictionary<string, string>? Open(string? secret)
    {
        try
        {
            return secret is null ? [] : JsonSerializer.Deserialize<Dictionary<string, string>>(_protector.Unprotect(secret)) ?? [];
        }
        catch (CryptographicException)
        {
            return null;
        }
    }
}
