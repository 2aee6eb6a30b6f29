using System.Text.Json.Serialization;

namespace ModelHost.Docker.Wire;

/// <summary>
/// The body of Podman's own <c>POST /libpod/containers/create</c> (<c>SpecGenerator</c>). Through Docker's API Podman 4 leaves
/// <c>DeviceRequests</c> out without a word and takes no CDI names as <c>Devices</c>; here it does.
/// </summary>
internal sealed record LibpodCreateRequest
{
    [JsonPropertyName("name")]
    public string? Name { get; init; }
    [JsonPropertyName("image")]
    public required string Image { get; init; }
    [JsonPropertyName("entrypoint")]
    public IReadOnlyList<string>? Entrypoint { get; init; }
    [JsonPropertyName("command")]
    public IReadOnlyList<string>? Command { get; init; }
    [JsonPropertyName("env")]
    public required IReadOnlyDictionary<string, string> Env { get; init; }
    [JsonPropertyName("labels")]
    public required IReadOnlyDictionary<string, string> Labels { get; init; }
    [JsonPropertyName("mounts")]
    public required IReadOnlyList<LibpodMount> Mounts { get; init; }
    [JsonPropertyName("netns")]
    public LibpodNamespace? Network { get; init; }
    [JsonPropertyName("ipcns")]
    public LibpodNamespace? Ipc { get; init; }
    [JsonPropertyName("init")]
    public bool Init { get; init; }
    [JsonPropertyName("devices")]
    public IReadOnlyList<LibpodDevice>? Devices { get; init; }
    [JsonPropertyName("restart_policy")]
    public required string RestartPolicy { get; init; }
    [JsonPropertyName("shm_size")]
    public long? ShmSize { get; init; }
    [JsonPropertyName("log_configuration")]
    public required LibpodLog Log { get; init; }
    [JsonPropertyName("resource_limits")]
    public LibpodLimits Limits { get; } = new(new(-1));
}

internal sealed record LibpodMount(
    [property: JsonPropertyName("type")] string Type, [property: JsonPropertyName("source")] string Source,
    [property: JsonPropertyName("destination")] string Destination, [property: JsonPropertyName("options")] IReadOnlyList<string> Options);

/// <param name="Mode">The kind of namespace, or <c>path</c>, <c>container</c> and the like.</param>
internal sealed record LibpodNamespace([property: JsonPropertyName("nsmode")] string Mode);

internal sealed record LibpodDevice([property: JsonPropertyName("path")] string Path);

internal sealed record LibpodLog([property: JsonPropertyName("driver")] string Driver, [property: JsonPropertyName("size")] long? Size);

internal sealed record LibpodLimits([property: JsonPropertyName("pids")] LibpodPids Pids);

/// <param name="Limit">-1: none, as with Docker; Podman's own default of 2048 is less than an engine on many GPUs may have threads.</param>
internal sealed record LibpodPids([property: JsonPropertyName("limit")] long Limit);
