using System.ComponentModel.DataAnnotations;
using ModelHost.Core.Engines;

namespace ModelHost.Agent.Downloads;

/// <summary>A login of a registry. Exactly one of <see cref="Password"/> and <see cref="PasswordFile"/> is given.</summary>
public sealed class NodeRegistry
{
    /// <summary>The registry, as images name it: <c>HOST[:PORT]</c>; <c>docker.io</c> is Docker Hub. The login goes to no other.</summary>
    public string Host { get; set; } = "";

    /// <summary>The user, or the name of an access token.</summary>
    public string Username { get; set; } = "";

    /// <summary>The password, or the access token.</summary>
    public string Password { get; set; } = "";

    /// <summary>A file that holds nothing but the password; read at each login, so that it may be replaced. An end of line at its end does not count.</summary>
    public string PasswordFile { get; set; } = "";
}

/// <summary>Lets through logins that can be used. What is wrong is said without them.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class NodeRegistriesAttribute : ValidationAttribute
{
    protected override ValidationResult? IsValid(object? value, ValidationContext validationContext)
    {
        var hosts = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
        foreach (var (registry, i) in (value as IEnumerable<NodeRegistry> ?? []).Select((registry, i) => (registry, i)))
        {
            if (Fault(registry, hosts) is { } fault)
                return new ValidationResult($"Node:Registries:{i} {fault}", [nameof(NodeOptions.Registries)]);
        }
        return ValidationResult.Success;
    }

    private static string? Fault(NodeRegistry registry, HashSet<string> hosts) =>
        !EngineImage.IsValidRepository(registry.Host + "/x") || EngineImage.RegistryOf(registry.Host + "/x") != registry.Host ? "has a Host that is not HOST[:PORT]"
        : !hosts.Add(RegistryLogins.Key(registry.Host)) ? "has the Host of another one"
        : registry.Username.Length == 0 || registry.Username.Contains(':', StringComparison.Ordinal) || registry.Username.Any(char.IsControl) ? "needs a Username, without a colon"
        : registry.Password.Length > 0 == registry.PasswordFile.Length > 0 ? "needs a Password or a PasswordFile, and not both"
        : registry.Password.Any(char.IsControl) ? "has a Password with control characters in it"
        : registry.PasswordFile.Length > 0 && !TryRead(registry) ? "has a PasswordFile that cannot be read, or holds no password"
        : null;

    private static bool TryRead(NodeRegistry registry)
    {
        try
        {
            return RegistryLogins.PasswordOf(registry).Length > 0;
        }
        catch (DownloadException)
        {
            return false;
        }
    }
}
