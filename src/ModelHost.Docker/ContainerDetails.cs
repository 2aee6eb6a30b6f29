namespace ModelHost.Docker;

/// <summary>What the engine knows of one container.</summary>
public sealed record ContainerDetails
{
    /// <summary>The full id.</summary>
    public required string Id { get; init; }

    /// <summary>The name, without the leading slash of the API.</summary>
    public required string Name { get; init; }

    /// <summary>Id of the image it was made from.</summary>
    public required string Image { get; init; }

    /// <summary>The image as it was asked for at creation.</summary>
    public required string ImageName { get; init; }

    /// <summary>When it was created; null when the engine does not say.</summary>
    public DateTimeOffset? Created { get; init; }

    /// <summary>Where it is in its life.</summary>
    public required ContainerState State { get; init; }

    /// <summary>Its labels, the image's included.</summary>
    public IReadOnlyDictionary<string, string> Labels { get; init; } = new Dictionary<string, string>();

    /// <summary>Environment as <c>NAME=value</c>, the image's included.</summary>
    public IReadOnlyList<string> Env { get; init; } = [];

    /// <summary>Entry point in force; empty when there is none.</summary>
    public IReadOnlyList<string> Entrypoint { get; init; } = [];

    /// <summary>Arguments in force.</summary>
    public IReadOnlyList<string> Command { get; init; } = [];

    /// <summary>Network mode, <c>host</c> for example.</summary>
    public string NetworkMode { get; init; } = "";

    /// <summary>IPC mode, <c>host</c> for example.</summary>
    public string IpcMode { get; init; } = "";

    /// <summary>Name of the restart policy; <c>no</c> when there is none.</summary>
    public string RestartPolicy { get; init; } = "no";

    /// <summary>Its bind mounts. Volumes and the like are left out.</summary>
    public IReadOnlyList<BindMount> Mounts { get; init; } = [];

    /// <summary>The GPUs it asked for: null for none, empty for all.</summary>
    public IReadOnlyList<string>? GpuDeviceIds { get; init; }

    /// <summary>Whether it has a terminal: its log is then one raw stream.</summary>
    public bool Tty { get; init; }
}

/// <summary>Where a container is in its life.</summary>
public sealed record ContainerState
{
    /// <summary><c>created</c>, <c>running</c>, <c>paused</c>, <c>restarting</c>, <c>removing</c>, <c>exited</c> or <c>dead</c>.</summary>
    public required string Status { get; init; }

    /// <summary>Whether its process lives; true as well while it is paused.</summary>
    public bool Running { get; init; }

    /// <summary>Exit code of the last run; 0 as well before the first end.</summary>
    public int ExitCode { get; init; }

    /// <summary>Process id on the machine; 0 when it does not run.</summary>
    public int Pid { get; init; }

    /// <summary>Whether the kernel ended it for want of memory. Podman does not tell.</summary>
    public bool OomKilled { get; init; }

    /// <summary>Why the last start failed; empty when it did not.</summary>
    public string Error { get; init; } = "";

    /// <summary>When it was last started; null when never.</summary>
    public DateTimeOffset? StartedAt { get; init; }

    /// <summary>When it last ended; null when never.</summary>
    public DateTimeOffset? FinishedAt { get; init; }
}

/// <summary>One line of the list of containers.</summary>
public sealed record ContainerSummary
{
    /// <summary>The full id.</summary>
    public required string Id { get; init; }

    /// <summary>Its names, without the leading slash of the API.</summary>
    public IReadOnlyList<string> Names { get; init; } = [];

    /// <summary>The image as it was asked for, or its id when that name has moved on.</summary>
    public string Image { get; init; } = "";

    /// <summary>Id of its image.</summary>
    public string ImageId { get; init; } = "";

    /// <summary>As <see cref="ContainerState.Status"/>.</summary>
    public string State { get; init; } = "";

    /// <summary>The engine's words for people, for example <c>Up 3 minutes</c>.</summary>
    public string Status { get; init; } = "";

    /// <summary>When it was created, to the second.</summary>
    public DateTimeOffset Created { get; init; }

    /// <summary>Its labels, the image's included.</summary>
    public IReadOnlyDictionary<string, string> Labels { get; init; } = new Dictionary<string, string>();
}
