using System.ComponentModel.DataAnnotations;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Core.Access;

namespace ModelHost.Features.ApiKeys;

/// <summary>An API key to be made.</summary>
public sealed record CreateApiKeyRequest
{
    /// <summary>Human-readable name for this key.</summary>
    [Required, StringLength(ApiKeyRules.MaxLabel, MinimumLength = 1)]
    public string? Label { get; init; }

    /// <summary>Lifetime of a temporary key in seconds; omit for a permanent key.</summary>
    [Range(1, 86400)]
    public int? TtlSeconds { get; init; }

    /// <summary>When a permanent key ends; omit for never.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Deployments that the key is for; null: all. A temporary key needs this or models.</summary>
    [MaxLength(ApiKeyRules.MaxDeployments)]
    public IReadOnlyList<int>? DeploymentIds { get; init; }

    /// <summary>Names of models or adapters that the key is for; null: all. Where deployment_ids are given as well, both limits hold.</summary>
    [MaxLength(ApiKeyRules.MaxModels)]
    public IReadOnlyList<string>? Models { get; init; }

    /// <summary>What the key is for: inference (the default), metrics, or both.</summary>
    [MaxLength(ApiKeyRules.MaxRoles)]
    public IReadOnlyList<string>? Roles { get; init; }

    /// <summary>Fields that there are not; refused, since a misspelt limit would be none.</summary>
    [JsonExtensionData]
    public IDictionary<string, JsonElement>? Unknown { get; init; }
}

/// <summary>What to change of a permanent key. Fields that are not given stay as they are; null takes a limit away.</summary>
public sealed record UpdateApiKeyRequest
{
    /// <summary>Updated label.</summary>
    [StringLength(ApiKeyRules.MaxLabel, MinimumLength = 1)]
    public string? Label { get; init { field = value; HasLabel = true; } }

    /// <summary>Updated end; null: never.</summary>
    public DateTimeOffset? ExpiresAt { get; init { field = value; HasExpiresAt = true; } }

    /// <summary>Updated deployment scope; null: all deployments.</summary>
    [MaxLength(ApiKeyRules.MaxDeployments)]
    public IReadOnlyList<int>? DeploymentIds { get; init { field = value; HasDeploymentIds = true; } }

    /// <summary>Updated scope of models and adapters; null: all.</summary>
    [MaxLength(ApiKeyRules.MaxModels)]
    public IReadOnlyList<string>? Models { get; init { field = value; HasModels = true; } }

    /// <summary>Updated roles: inference, metrics, or both.</summary>
    [MaxLength(ApiKeyRules.MaxRoles)]
    public IReadOnlyList<string>? Roles { get; init { field = value; HasRoles = true; } }

    /// <summary>Fields that there are not; refused, since a misspelt limit would be none.</summary>
    [JsonExtensionData]
    public IDictionary<string, JsonElement>? Unknown { get; init; }

    /// <summary>Whether the request names the field, with null or with a value; as those below.</summary>
    internal bool HasLabel { get; private init; }

    internal bool HasExpiresAt { get; private init; }

    internal bool HasDeploymentIds { get; private init; }

    internal bool HasModels { get; private init; }

    internal bool HasRoles { get; private init; }
}

/// <summary>An API key without the key itself.</summary>
internal record ApiKeyRead
{
    /// <summary>Its id.</summary>
    public required int Id { get; init; }

    /// <summary>Its name.</summary>
    public required string Label { get; init; }

    /// <summary>The first characters of the key.</summary>
    public required string Prefix { get; init; }

    /// <summary>When it was made.</summary>
    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>When a request was let in with it last, to a second; null: never.</summary>
    public required DateTimeOffset? LastUsedAt { get; init; }

    /// <summary>When it ends; null: never.</summary>
    public required DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Deployments that it is for; null: all. Those that have been deleted are left out.</summary>
    public required IReadOnlyList<int>? AllowedDeploymentIds { get; init; }

    /// <summary>Names of models and adapters that it is for; null: all.</summary>
    public required IReadOnlyList<string>? AllowedModels { get; init; }

    /// <summary>What it is for.</summary>
    public required IReadOnlyList<string> Roles { get; init; }

    /// <summary>Whether it was made with a lifetime, and is deleted after its end.</summary>
    public required bool Temporary { get; init; }

    /// <summary>The key that made it, and limits it; null: an administrator did.</summary>
    public required int? MadeBy { get; init; }
}

/// <summary>An API key that was made just now.</summary>
internal sealed record ApiKeyCreated : ApiKeyRead
{
    [SetsRequiredMembers]
    public ApiKeyCreated(ApiKeyRead read, string key)
        : base(read) => Key = key;

    /// <summary>The key itself: it is shown here and never again.</summary>
    public string Key { get; }
}

/// <summary>The words of the API for roles.</summary>
internal static class KeyRoleWords
{
    private static readonly (string Word, KeyRoles Role)[] All = [("inference", KeyRoles.Inference), ("metrics", KeyRoles.Metrics)];

    /// <summary>The words, separated by commas.</summary>
    public static string Known { get; } = string.Join(", ", All.Select(role => role.Word));

    /// <summary>The role that a word names; none: there is no such word.</summary>
    public static KeyRoles Read(string word) => All.FirstOrDefault(role => role.Word == word).Role;

    /// <summary>The words for roles.</summary>
    public static IReadOnlyList<string> ToWords(this KeyRoles roles) => [.. All.Where(role => roles.HasFlag(role.Role)).Select(role => role.Word)];
}
