using System.Globalization;
using System.Text.Json;
using ModelHost.Core;
using ModelHost.Core.Access;

namespace ModelHost.Features.ApiKeys;

/// <summary>What attributes cannot say about a request for a key.</summary>
internal static class ApiKeyRules
{
    /// <summary>Longest label, in characters.</summary>
    public const int MaxLabel = 128;

    /// <summary>Most deployments that a key is limited to.</summary>
    public const int MaxDeployments = 1000;

    /// <summary>Most models that a key is limited to.</summary>
    public const int MaxModels = 100;

    /// <summary>Most roles named.</summary>
    public const int MaxRoles = 10;

    /// <summary>Longest name of a model.</summary>
    private const int MaxModelName = 255;

    /// <summary>Looks for fields that there are not.</summary>
    public static Failure? Unknown(IDictionary<string, JsonElement>? fields) =>
        fields?.Keys.FirstOrDefault() is { } name ? Failure.Invalid(Shown(name), "is no field of this request") : null;

    /// <summary>Checks a label.</summary>
    public static Failure? Label(string? label) =>
        string.IsNullOrWhiteSpace(label) || label.Any(char.IsControl) ? Failure.Invalid("label", "is blank, null or holds control characters") : null;

    /// <summary>Checks the end of a key.</summary>
    public static Failure? Expiry(DateTimeOffset? expiresAt, DateTimeOffset now) =>
        expiresAt <= now ? Failure.Invalid("expires_at", "must be in the future") : null;

    /// <summary>Checks names of models.</summary>
    public static Failure? Models(IReadOnlyList<string>? models)
    {
        for (var i = 0; i < models?.Count; i++)
        {
            if (string.IsNullOrWhiteSpace(models[i]) || models[i].Length > MaxModelName || models[i].Any(char.IsControl))
                return Failure.Invalid(string.Create(CultureInfo.InvariantCulture, $"models[{i}]"), $"must be a name of 1 to {MaxModelName} characters");
        }
        return null;
    }

    /// <summary>Reads roles.</summary>
    public static Result<KeyRoles> Roles(IReadOnlyList<string>? words)
    {
        if (words is null or [])
            return Failure.Invalid("roles", $"must name at least one of {KeyRoleWords.Known}");
        var roles = KeyRoles.None;
        for (var i = 0; i < words.Count; i++)
        {
            var role = words[i] is { } word ? KeyRoleWords.Read(word) : KeyRoles.None;
            if (role == KeyRoles.None)
                return Failure.Invalid(string.Create(CultureInfo.InvariantCulture, $"roles[{i}]"), $"is none of {KeyRoleWords.Known}");
            roles |= role;
        }
        return roles;
    }

    private static string Shown(string name) => name.Length <= 64 ? name : name[..64];
}
