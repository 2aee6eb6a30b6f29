using System.Text.Json;
using System.Text.Json.Serialization;

namespace ModelHost.Agent.Runtimes;

/// <summary>What is kept on disk of an engine that runs as a process, so that a host that was killed finds it again. No secrets.</summary>
internal sealed record ProcessSidecar
{
    public required string DeploymentUid { get; init; }
    public required string RunId { get; init; }
    public required string Spec { get; init; }
    public required int EnginePort { get; init; }
    public required IReadOnlyList<string> Command { get; init; }
    public required string OutputFile { get; init; }

    /// <summary>
    /// Tells one attempt to start the run from the next: a process that an attempt left behind must not begin with the key and the port of
    /// another.
    /// </summary>
    public string Attempt { get; init; } = "";

    /// <summary>Written by the process itself before it becomes the engine; null: it never did.</summary>
    public int? Pid { get; init; }

    /// <summary>Tells the process from a later one of the same number.</summary>
    public long? StartTicks { get; init; }

    /// <summary>Whether its process is alive.</summary>
    [JsonIgnore]
    public bool IsAlive => Pid is { } pid && StartTicks is { } ticks && Libc.StartTicks(pid) == ticks;

    /// <summary>Reads a sidecar; null: there is none, or it is none of ours.</summary>
    public static ProcessSidecar? Read(string path)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllBytes(path), ProcessSidecarJson.Default.ProcessSidecar);
        }
        catch (Exception e) when (e is JsonException or FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    /// <summary>Writes the sidecar whole or not at all.</summary>
    public void Write(string path) => WholeFile.Write(path, file => JsonSerializer.Serialize(file, this, ProcessSidecarJson.Default.ProcessSidecar));
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(ProcessSidecar))]
internal sealed partial class ProcessSidecarJson : JsonSerializerContext;
