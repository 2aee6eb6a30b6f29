using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using ModelHost.Features.Deployments;

namespace ModelHost.Features.Nodes;

/// <summary>Registers a node by hand.</summary>
public sealed record NodeCreate : StrictRequest
{
    /// <summary>A host name (RFC 1123) that no other node has.</summary>
    [Required, StringLength(253, MinimumLength = 1)]
    public string? Hostname { get; init; }

    /// <summary>An IPv4 or IPv6 address.</summary>
    [Required, StringLength(45, MinimumLength = 1)]
    public string? IpAddress { get; init; }

    /// <summary>The agent's port. Default 9000.</summary>
    [Range(1, 65535)]
    public int? Port { get; init; }
}

/// <summary>Changes a node registered by hand; what is absent or null stays.</summary>
public sealed record NodeUpdate : StrictRequest
{
    /// <summary>A host name (RFC 1123) that no other node has.</summary>
    [StringLength(253, MinimumLength = 1)]
    public string? Hostname { get; init; }

    /// <summary>An IPv4 or IPv6 address.</summary>
    [StringLength(45, MinimumLength = 1)]
    public string? IpAddress { get; init; }

    /// <summary>The agent's port.</summary>
    [Range(1, 65535)]
    public int? Port { get; init; }
}

/// <summary>Chooses a node's runtime.</summary>
public sealed record NodeRuntime : StrictRequest
{
    /// <summary>docker or podman; null: that of the settings.</summary>
    [AllowedValues("docker", "podman", null, ErrorMessage = "must be docker, podman or null")]
    public string? Runtime
    {
        get;
        init => (field, IsGiven) = (value, true);
    }

    /// <summary>Whether a runtime was given: null is a value, and the absence of one is not.</summary>
    [JsonIgnore]
    internal bool IsGiven { get; private init; }
}

/// <summary>Sets a node's warm cache up.</summary>
public sealed record NodeWarmCache : StrictRequest
{
    /// <summary>Whether models may be put to sleep to make room for others.</summary>
    [Required]
    public bool? Enabled { get; init; }

    /// <summary>RAM in MiB that sleeping models may hold; null: no limit.</summary>
    [Range(1, int.MaxValue)]
    public int? RamCacheLimitMb { get; init; }
}

/// <summary>Takes a node or GPUs of it out of use for new deployments, or back into it.</summary>
public sealed record NodeMaintenance : StrictRequest
{
    /// <summary>Default of <see cref="DrainTimeoutSeconds"/>.</summary>
    public const int DefaultDrainTimeout = 600;

    /// <summary>The GPUs meant; empty or absent: the whole node.</summary>
    [MaxLength(1024)]
    public IReadOnlyList<int>? GpuIds { get; init; }

    /// <summary>True cordons, false uncordons.</summary>
    [Required]
    public bool? Enabled { get; init; }

    /// <summary>Whether the deployments there are stopped too, each when the requests under way on it have been answered.</summary>
    public bool? Drain { get; init; }

    /// <summary>Longest time in seconds to wait for those requests. Default 600.</summary>
    [Range(0, 86_400)]
    public int? DrainTimeoutSeconds { get; init; }
}
