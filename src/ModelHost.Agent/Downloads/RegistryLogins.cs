using System.Text;
using ModelHost.Core.Engines;

namespace ModelHost.Agent.Downloads;

/// <summary>Who a registry is to take this node for.</summary>
/// <param name="username">The user.</param>
/// <param name="password">The password, told to nobody but the registry.</param>
internal sealed class RegistryAccount(string username, string password)
{
    public string Username => username;

    public string Password => password;

    /// <summary>Both as an <c>Authorization</c>.</summary>
    public string Basic => "Basic " + Convert.ToBase64String(Encoding.UTF8.GetBytes($"{username}:{password}"));
}

/// <summary>The logins that a node has for registries, each for its host alone.</summary>
internal sealed class RegistryLogins(IEnumerable<NodeRegistry> registries)
{
    private const int MaxPasswordBytes = 64 * 1024; // cloud providers give out tokens of some KiB
    private readonly Dictionary<string, NodeRegistry> _registries = registries.ToDictionary(registry => Key(registry.Host), StringComparer.OrdinalIgnoreCase);

    /// <summary>The login for a registry; null: there is none.</summary>
    /// <param name="registry">Host and port as images name them.</param>
    /// <exception cref="DownloadException">Its file cannot be read.</exception>
    public RegistryAccount? Of(string registry) =>
        _registries.TryGetValue(Key(registry), out var known) ? new RegistryAccount(known.Username, PasswordOf(known)) : null;

    /// <summary>The one name of a registry that has several.</summary>
    public static string Key(string registry) => registry.ToLowerInvariant() is "index.docker.io" or "registry-1.docker.io" ? EngineImage.DockerHub : registry;

    /// <summary>The password as it is now.</summary>
    /// <exception cref="DownloadException">Its file cannot be read, or holds none.</exception>
    public static string PasswordOf(NodeRegistry registry)
    {
        if (registry.PasswordFile.Length == 0)
            return registry.Password;
        try
        {
            var file = new FileInfo(registry.PasswordFile);
            var text = file.Length <= MaxPasswordBytes ? File.ReadAllText(file.FullName, Encoding.UTF8).TrimEnd('\r', '\n') : "";
            if (text.Length > 0 && !text.Any(char.IsControl))
                return text;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unusable(registry, e);
        }
        throw Unusable(registry, null);
    }

    private static DownloadException Unusable(NodeRegistry registry, Exception? inner) =>
        new("access_denied", $"the file with the password for the registry {registry.Host} (Node:Registries) cannot be read, or holds none", inner: inner);
}
