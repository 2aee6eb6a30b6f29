namespace ModelHost.Docker;

/// <summary>A container to create. What is left out is left to the image and the engine.</summary>
public sealed record ContainerSpec
{
    /// <summary>Reference or id of an image that the engine already has; the engine answers 404 otherwise.</summary>
    public required string Image { get; init; }

    /// <summary>Replaces the image's entry point; null keeps it.</summary>
    public IReadOnlyList<string>? Entrypoint { get; init; }

    /// <summary>Arguments, one by one; no shell is involved. Empty keeps the image's own.</summary>
    public IReadOnlyList<string> Command { get; init; } = [];

    /// <summary>Environment variables added to the image's.</summary>
    public IReadOnlyDictionary<string, string> Env { get; init; } = new Dictionary<string, string>();

    /// <summary>Labels added to the image's.</summary>
    public IReadOnlyDictionary<string, string> Labels { get; init; } = new Dictionary<string, string>();

    /// <summary>Folders and files of the machine to show inside. The engine answers 400 when a source does not exist.</summary>
    public IReadOnlyList<BindMount> Mounts { get; init; } = [];

    /// <summary><c>host</c>, <c>none</c>, <c>bridge</c> or, of Docker alone, a network's name; null for the engine's default.</summary>
    public string? NetworkMode { get; init; }

    /// <summary><c>host</c>, <c>private</c> and so on; null for the engine's default.</summary>
    public string? IpcMode { get; init; }

    /// <summary>Runs a small init as process 1, which reaps children and passes signals on.</summary>
    public bool Init { get; init; }

    /// <summary>GPUs to hand in; null for none. Docker without the vendor's runtime, and Podman without a CDI specification of them, refuse at the start, with 500.</summary>
    public GpuRequest? Gpus { get; init; }

    /// <summary>Device files and folders of the machine to hand in under the same path, to read and write. The engine answers 500 at the start when one does not exist.</summary>
    public IReadOnlyList<string> Devices { get; init; } = [];

    /// <summary><c>no</c> (the default), <c>always</c>, <c>unless-stopped</c> or <c>on-failure</c>.</summary>
    public string RestartPolicy { get; init; } = "no";

    /// <summary>Size of <c>/dev/shm</c> in bytes; null for the engine's default. Without effect when the IPC mode is <c>host</c>.</summary>
    public long? ShmSizeBytes { get; init; }

    /// <summary>Bytes of output that the engine keeps, in two files of half of it each; null: as the engine is set up, which by default is all.</summary>
    public long? MaxLogBytes { get; init; }
}

/// <summary>A folder or file of the machine shown inside a container.</summary>
/// <param name="Source">Absolute path on the machine; must exist.</param>
/// <param name="Target">Absolute path inside.</param>
/// <param name="ReadOnly">Refuses writes from inside.</param>
public sealed record BindMount(string Source, string Target, bool ReadOnly = false);

/// <summary>A request for GPUs.</summary>
public sealed record GpuRequest
{
    /// <summary>Indexes or UUIDs as the vendor's tool lists them; empty for all GPUs of the machine.</summary>
    public IReadOnlyList<string> DeviceIds { get; init; } = [];
}

/// <summary>A container that was created and not started yet.</summary>
/// <param name="Id">The engine's full id.</param>
/// <param name="Warnings">What the engine did not like but accepted.</param>
public sealed record ContainerCreated(string Id, IReadOnlyList<string> Warnings);
