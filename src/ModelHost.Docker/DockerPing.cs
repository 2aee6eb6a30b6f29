namespace ModelHost.Docker;

/// <summary>Who answers at the endpoint.</summary>
/// <param name="ApiVersion">The version that calls are made in: the lower of what this client and the engine speak.</param>
/// <param name="EngineApiVersion">The newest version that the engine speaks.</param>
/// <param name="Server">The engine's name and version, for example <c>Docker/20.10.24 (linux)</c>; null when it does not say.</param>
public sealed record DockerPing(string ApiVersion, string EngineApiVersion, string? Server)
{
    /// <summary>Whether it is Podman, which has an API of its own beside Docker's.</summary>
    public bool IsPodman { get; init; }
}
