using System.Text.Json.Serialization;

namespace ModelHost.Docker.Wire;

// Names and shapes are those of the Docker Engine API, versions 1.41 to 1.47.

internal sealed record CreateContainerRequest
{
    public required string Image { get; init; }
    public IReadOnlyList<string>? Entrypoint { get; init; }
    public IReadOnlyList<string>? Cmd { get; init; }
    public required IReadOnlyList<string> Env { get; init; }
    public required IReadOnlyDictionary<string, string> Labels { get; init; }
    public required HostConfigRequest HostConfig { get; init; }
}

internal sealed record HostConfigRequest
{
    public required IReadOnlyList<MountRequest> Mounts { get; init; }
    public string? NetworkMode { get; init; }
    public string? IpcMode { get; init; }
    public bool Init { get; init; }
    public IReadOnlyList<DeviceRequest>? DeviceRequests { get; init; }
    public IReadOnlyList<DeviceWire>? Devices { get; init; }
    public required RestartPolicyWire RestartPolicy { get; init; }
    public long? ShmSize { get; init; }
    public LogConfigWire? LogConfig { get; init; }
}

internal sealed record LogConfigWire(string Type, IReadOnlyDictionary<string, string> Config);

internal sealed record MountRequest(string Type, string Source, string Target, bool ReadOnly);

internal sealed record RestartPolicyWire(string? Name);

internal sealed record DeviceWire(string PathOnHost, string PathInContainer, string CgroupPermissions);

internal sealed record DeviceRequest
{
    public string? Driver { get; init; }
    public int Count { get; init; }
    [JsonPropertyName("DeviceIDs")]
    public IReadOnlyList<string>? DeviceIds { get; init; }
    public IReadOnlyList<IReadOnlyList<string>>? Capabilities { get; init; }
}

internal sealed record CreateContainerAnswer
{
    public required string Id { get; init; }
    public IReadOnlyList<string>? Warnings { get; init; }
}

internal sealed record WaitAnswer
{
    public required long StatusCode { get; init; }
    public WaitError? Error { get; init; }
}

internal sealed record WaitError(string? Message);

internal sealed record ContainerAnswer
{
    public required string Id { get; init; }
    public string? Name { get; init; }
    public string? Image { get; init; }
    public string? Created { get; init; }
    public required StateAnswer State { get; init; }
    public ConfigAnswer? Config { get; init; }
    public HostConfigAnswer? HostConfig { get; init; }
    public IReadOnlyList<MountAnswer>? Mounts { get; init; }
}

internal sealed record StateAnswer
{
    public required string Status { get; init; }
    public bool Running { get; init; }
    public int ExitCode { get; init; }
    public int Pid { get; init; }
    [JsonPropertyName("OOMKilled")]
    public bool OomKilled { get; init; }
    public string? Error { get; init; }
    public string? StartedAt { get; init; }
    public string? FinishedAt { get; init; }
}

internal sealed record ConfigAnswer
{
    public string? Image { get; init; }
    public bool Tty { get; init; }
    public IReadOnlyList<string>? Env { get; init; }
    public IReadOnlyList<string>? Entrypoint { get; init; }
    public IReadOnlyList<string>? Cmd { get; init; }
    public IReadOnlyDictionary<string, string>? Labels { get; init; }
}

internal sealed record HostConfigAnswer
{
    public string? NetworkMode { get; init; }
    public string? IpcMode { get; init; }
    public RestartPolicyWire? RestartPolicy { get; init; }
    public IReadOnlyList<DeviceRequest>? DeviceRequests { get; init; }
}

internal sealed record MountAnswer
{
    public string? Type { get; init; }
    public string? Source { get; init; }
    public string? Destination { get; init; }
    [JsonPropertyName("RW")]
    public bool Writable { get; init; }
}

internal sealed record ContainerListAnswer
{
    public required string Id { get; init; }
    public IReadOnlyList<string>? Names { get; init; }
    public string? Image { get; init; }
    [JsonPropertyName("ImageID")]
    public string? ImageId { get; init; }
    public string? State { get; init; }
    public string? Status { get; init; }
    public long Created { get; init; }
    public IReadOnlyDictionary<string, string>? Labels { get; init; }
}
