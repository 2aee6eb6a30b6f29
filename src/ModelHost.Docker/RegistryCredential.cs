using System.Text.Json.Serialization;
using ModelHost.Docker.Wire;

namespace ModelHost.Docker;

/// <summary>A login of a registry that an engine is to use for one pull.</summary>
/// <param name="username">The user.</param>
/// <param name="password">The password. It goes to the engine and on to the registry, and into no message.</param>
/// <param name="serverAddress">The registry: <c>host[:port]</c>, or <c>https://index.docker.io/v1/</c> for Docker Hub.</param>
public sealed class RegistryCredential(string username, string password, string serverAddress)
{
    /// <summary>The value of the header <c>X-Registry-Auth</c>: JSON as base64 for addresses.</summary>
    internal string Header => Convert.ToBase64String(System.Text.Json.JsonSerializer.SerializeToUtf8Bytes(new AuthConfig(username, password, serverAddress), DockerJson.Default.AuthConfig))
        .Replace('+', '-').Replace('/', '_');
}

/// <summary>A login as engines read it.</summary>
internal sealed record AuthConfig(
    [property: JsonPropertyName("username")] string Username, [property: JsonPropertyName("password")] string Password, [property: JsonPropertyName("serveraddress")] string ServerAddress);
