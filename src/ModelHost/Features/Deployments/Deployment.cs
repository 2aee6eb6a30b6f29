using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>The wish to serve one model on one node, and what became of it.</summary>
internal sealed class Deployment
{
    public int Id { get; set; }

    /// <summary>What its containers carry; the id is an alias.</summary>
    public required string Uid { get; set; }

    public int NodeId { get; set; }

    /// <summary><see cref="LaunchSpec"/> as JSON.</summary>
    public required string Spec { get; set; }

    /// <summary>Values of the variables, encrypted; null: none.</summary>
    public string? EnvValues { get; set; }

    /// <summary>The newest release of the engine known when the run was asked for.</summary>
    public string LatestVersion { get; set; } = "";

    /// <summary>The spec; of one that a newer version wrote, just enough to show that the deployment is there and holds its port.</summary>
    public LaunchSpec ReadSpec() => LaunchSpec.FromJson(Spec) ?? new LaunchSpec { ModelName = "unknown", Owner = "unknown", Port = ReservedPort ?? 0 };

    // written by the API, and by reconciliation where the lease or a failure ends it
    public WantedState Wanted { get; set; }

    /// <summary>Whether a request for its model starts it while it rests: as the spec says it, so that it can be queried. Written by the API, and of one that was found running as the node says it.</summary>
    public bool StartOnDemand { get; set; }

    // written by reconciliation from what the node reports
    public DeploymentStatus Status { get; set; }
    public string? Detail { get; set; }
    public string? LastError { get; set; }

    /// <summary>Stable name of the cause in <see cref="LastError"/>.</summary>
    public string? ErrorCode { get; set; }
    public required string RunId { get; set; }
    public bool RunSeen { get; set; }

    /// <summary>When the run may begin or began; null: reconciliation has not looked at the wish yet.</summary>
    public DateTimeOffset? BeginsAt { get; set; }

    /// <summary>When the run was first ready.</summary>
    public DateTimeOffset? ReadyAt { get; set; }

    /// <summary>Failed starts in a row.</summary>
    public int FailedStarts { get; set; }
    public int? ReservedPort { get; set; }
    public DateTimeOffset CreatedAt { get; set; }
    public DateTimeOffset StatusChangedAt { get; set; }
    public DateTimeOffset? ExpiresAt { get; set; }

    /// <summary>Grows with every change of the lease or the spec that the node is to be told.</summary>
    public long LeaseVersion { get; set; }

    /// <summary>The end of the lease that was warned of last.</summary>
    public DateTimeOffset? WarnedOf { get; set; }

    /// <summary>Until when its end waits for requests under way; null: for none.</summary>
    public DateTimeOffset? DrainUntil { get; set; }

    /// <summary>Why it does not hold its port and names, of one that was found running; null: it holds them.</summary>
    public string? Conflict { get; set; }

    /// <summary>Whether another deployment has one of its names, so that it is not routed to.</summary>
    public bool NamesTaken { get; set; }
    public string? EngineVersion { get; set; }
    public string? ImageDigest { get; set; }

    // totals over all runs, and the counters of the current run that are already in them
    public long TotalPromptTokens { get; set; }
    public long TotalCompletionTokens { get; set; }
    public long TotalRequests { get; set; }
    public double CountedPromptTokens { get; set; }
    public double CountedCompletionTokens { get; set; }
    public double CountedRequests { get; set; }

    /// <summary>Counts writes: who writes what it has not read last is refused.</summary>
    public int Version { get; set; }

    /// <summary>Asks for a new run of a deployment that ended; its totals stay.</summary>
    public void BeginRun(LaunchSpec spec, string latestVersion, DateTimeOffset now)
    {
        (Spec, LatestVersion, ReservedPort) = (spec.ToJson(), latestVersion, spec.Port);
        (Wanted, Status, StatusChangedAt) = (WantedState.Running, DeploymentStatus.Starting, now);
        (RunId, RunSeen) = (Guid.NewGuid().ToString("N"), false);
        (Detail, LastError, ErrorCode, ExpiresAt, WarnedOf) = (null, null, null, null, null);
        // asked for by somebody: what failed before counts no more
        (BeginsAt, ReadyAt, FailedStarts, Conflict, NamesTaken, DrainUntil) = (null, null, 0, null, false, null);
        LeaseVersion++;
        // the counters of an engine begin with it
        (CountedPromptTokens, CountedCompletionTokens, CountedRequests) = (0, 0, 0);
        Version++;
    }

    /// <summary>The lease as its node is to know it.</summary>
    public Lease ReadLease() => new(LeaseVersion, ExpiresAt, ReadSpec().DurationSeconds);

    /// <summary>Takes another lease. The node is told until it has acknowledged.</summary>
    public void Take(Lease lease)
    {
        Spec = (ReadSpec() with { DurationSeconds = lease.DurationSeconds }).ToJson();
        (LeaseVersion, ExpiresAt) = (lease.Version, lease.ExpiresAt);
    }

    /// <summary>How the gateway sees it.</summary>
    /// <param name="engine">What its node says of the run; null: nothing.</param>
    public ModelRoute ToRoute(Engine? engine)
    {
        var spec = ReadSpec();
        var protocol = BackendCatalogue.Of(spec)?.Protocol ?? "openai";
        return new ModelRoute(Id, Status, spec.ServedModelName, spec.ModelName, [.. spec.LoraModules.Select(module => module.Name)],
            spec.Owner, CreatedAt, engine is { Phase: EnginePhase.Ready } ? new Uri(engine.EngineUrl) : null, engine?.EngineKey)
        {
            DeploymentUid = Uid,
            RunId = RunId,
            Backend = spec.Backend,
            StartsOnDemand = StartOnDemand,
            StatusSince = StatusChangedAt,
            Protocol = protocol,
            Defaults = protocol == BackendCatalogue.Grpc ? GenerationDefaults.Of(spec.Backend, spec.EngineArgs) : GenerationDefaults.None,
        };
    }
}

/// <summary>A name under which a deployment is asked for. One owner each, cluster-wide: the key decides.</summary>
internal sealed class PublicName
{
    public required string Name { get; set; }

    public int DeploymentId { get; set; }
}
