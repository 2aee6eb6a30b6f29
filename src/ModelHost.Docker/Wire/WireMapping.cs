using System.Globalization;

namespace ModelHost.Docker.Wire;

/// <summary>Between the engine's shapes and ours.</summary>
internal static class WireMapping
{
    private const string Hub = "docker.io/";
    private static readonly Dictionary<string, string> NoLabels = [];

    public static CreateContainerRequest ToWire(this ContainerSpec spec) => new()
    {
        Image = spec.Image,
        Entrypoint = spec.Entrypoint,
        Cmd = spec.Command.Count == 0 ? null : spec.Command,
        Env = [.. spec.Env.Select(v => $"{v.Key}={v.Value}")],
        Labels = spec.Labels,
        HostConfig = new()
        {
            // as mounts, not as binds: of a bind whose source is missing the engine would make an empty folder, owned by root
            Mounts = [.. spec.Mounts.Select(m => new MountRequest("bind", m.Source, m.Target, m.ReadOnly))],
            NetworkMode = spec.NetworkMode,
            IpcMode = spec.IpcMode,
            Init = spec.Init,
            DeviceRequests = spec.Gpus is { } gpus ? [gpus.ToWire()] : null,
            Devices = spec.Devices.Count == 0 ? null : [.. spec.Devices.Select(path => new DeviceWire(path, path, "rwm"))],
            RestartPolicy = new(spec.RestartPolicy),
            ShmSize = spec.ShmSizeBytes,
            LogConfig = spec.MaxLogBytes is { } bytes
                ? new("json-file", new Dictionary<string, string>
                {
                    ["max-size"] = (bytes / 2).ToString(CultureInfo.InvariantCulture),
                    ["max-file"] = "2",
                }) : null,
        },
    };

    public static LibpodCreateRequest ToLibpod(this ContainerSpec spec, string? name) => new()
    {
        Name = name,
        Image = spec.Image,
        Entrypoint = spec.Entrypoint,
        Command = spec.Command.Count == 0 ? null : spec.Command,
        Env = spec.Env,
        Labels = spec.Labels,
        Mounts = [.. spec.Mounts.Select(m => new LibpodMount("bind", m.Source, m.Target, ["rbind", m.ReadOnly ? "ro" : "rw"]))],
        Network = spec.NetworkMode is { } network ? new(network) : null,
        Ipc = spec.IpcMode is { } ipc ? new(ipc) : null,
        Init = spec.Init,
        Devices = [.. (spec.Gpus?.CdiNames() ?? []).Concat(spec.Devices).Select(device => new LibpodDevice(device))],
        RestartPolicy = spec.RestartPolicy,
        ShmSize = spec.ShmSizeBytes,
        // as a file: of a journal the engine would keep what it likes
        Log = new("k8s-file", spec.MaxLogBytes),
    };

    public static ContainerDetails ToDetails(this ContainerAnswer answer) => new()
    {
        Id = answer.Id,
        Name = WithoutSlash(answer.Name ?? ""),
        Image = answer.Image ?? "",
        ImageName = Familiar(answer.Config?.Image ?? ""),
        Created = Time(answer.Created),
        State = new()
        {
            Status = answer.State.Status,
            Running = answer.State.Running,
            ExitCode = answer.State.ExitCode,
            Pid = answer.State.Pid,
            OomKilled = answer.State.OomKilled,
            Error = answer.State.Error ?? "",
            StartedAt = Time(answer.State.StartedAt),
            FinishedAt = Time(answer.State.FinishedAt),
        },
        Labels = answer.Config?.Labels ?? NoLabels,
        Env = answer.Config?.Env ?? [],
        Entrypoint = answer.Config?.Entrypoint ?? [],
        Command = answer.Config?.Cmd ?? [],
        Tty = answer.Config?.Tty ?? false,
        NetworkMode = answer.HostConfig?.NetworkMode ?? "",
        IpcMode = answer.HostConfig?.IpcMode ?? "",
        RestartPolicy = answer.HostConfig?.RestartPolicy?.Name is { Length: > 0 } policy ? policy : "no",
        Mounts = [.. (answer.Mounts ?? []).Where(m => m.Type == "bind").Select(m => new BindMount(m.Source ?? "", m.Destination ?? "", !m.Writable))],
        GpuDeviceIds = answer.HostConfig?.DeviceRequests?.FirstOrDefault(IsForGpus) is { } request ? request.DeviceIds ?? [] : null,
    };

    public static ContainerSummary ToSummary(this ContainerListAnswer answer) => new()
    {
        Id = answer.Id,
        Names = [.. (answer.Names ?? []).Select(WithoutSlash)],
        Image = answer.Image ?? "",
        ImageId = answer.ImageId ?? "",
        State = answer.State ?? "",
        Status = answer.Status ?? "",
        Created = Time(answer.Created),
        Labels = answer.Labels ?? NoLabels,
    };

    public static ImageSummary ToSummary(this ImageListAnswer answer) => new()
    {
        Id = answer.Id,
        RepoTags = Familiar(answer.RepoTags),
        RepoDigests = Familiar(answer.RepoDigests),
        Created = Time(answer.Created),
        SizeBytes = answer.Size,
        Labels = answer.Labels ?? NoLabels,
    };

    public static ImageDetails ToDetails(this ImageAnswer answer) => new()
    {
        Id = answer.Id,
        RepoTags = Familiar(answer.RepoTags),
        RepoDigests = Familiar(answer.RepoDigests),
        Created = Time(answer.Created),
        Labels = answer.Config?.Labels ?? NoLabels,
        Architecture = answer.Architecture ?? "",
    };

    public static ImageRemoval ToRemoval(this IReadOnlyList<RemovedAnswer> answer) =>
        new([.. answer.Select(r => r.Untagged).OfType<string>()], [.. answer.Select(r => r.Deleted).OfType<string>()]);

    public static PruneReport ToReport(this PruneAnswer answer)
    {
        var removed = (answer.ImagesDeleted ?? []).ToRemoval();
        return new(removed.Untagged, removed.Deleted, (long)Math.Min(answer.SpaceReclaimed, long.MaxValue));
    }

    public static EngineEvent ToEvent(this EventAnswer answer)
    {
        var (seconds, nanoseconds) = answer.TimeNano > 0 ? Math.DivRem(answer.TimeNano, 1_000_000_000) : (answer.Time, 0);
        return new()
        {
            Type = answer.Type,
            Action = answer.Action,
            Id = answer.Actor?.Id ?? "",
            Attributes = answer.Actor?.Attributes ?? NoLabels,
            Time = string.Create(CultureInfo.InvariantCulture, $"{seconds}.{nanoseconds:D9}"),
        };
    }

    private static DeviceRequest ToWire(this GpuRequest gpus) => new()
    {
        Driver = "",
        Count = gpus.DeviceIds.Count == 0 ? -1 : 0,
        DeviceIds = gpus.DeviceIds.Count == 0 ? null : gpus.DeviceIds,
        Capabilities = [["gpu"]],
    };

    /// <summary>The names that <c>nvidia-ctk cdi generate</c> gives GPUs, by index and by UUID.</summary>
    private static IEnumerable<string> CdiNames(this GpuRequest gpus) =>
        (gpus.DeviceIds.Count == 0 ? ["all"] : gpus.DeviceIds).Select(id => $"nvidia.com/gpu={id}");

    private static bool IsForGpus(DeviceRequest request) =>
        request.Capabilities?.Any(all => all.Contains("gpu")) ?? false;

    private static string WithoutSlash(string name) => name.StartsWith('/') ? name[1..] : name;

    /// <summary>
    /// The names as Docker writes them: Podman puts the registry before those of Docker Hub too. Up to API 1.42 an image without a name is listed as
    /// <c>&lt;none&gt;:&lt;none&gt;</c>.
    /// </summary>
    private static IReadOnlyList<string> Familiar(IReadOnlyList<string>? names) =>
        [.. (names ?? []).Where(n => !n.StartsWith("<none>", StringComparison.Ordinal)).Select(Familiar)];

    private static string Familiar(string name) =>
        name.StartsWith(Hub + "library/", StringComparison.Ordinal) ? name[(Hub.Length + "library/".Length)..]
        : name.StartsWith(Hub, StringComparison.Ordinal) ? name[Hub.Length..] : name;

    /// <summary>Null for what is empty, unreadable, or Go's zero time: the engine's words for "never".</summary>
    public static DateTimeOffset? Time(string? text) =>
        DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time) && time.Year > 1 ? time : null;

    private static DateTimeOffset Time(long unixSeconds) => DateTimeOffset.FromUnixTimeSeconds(
        Math.Clamp(unixSeconds, DateTimeOffset.MinValue.ToUnixTimeSeconds(), DateTimeOffset.MaxValue.ToUnixTimeSeconds()));
}
