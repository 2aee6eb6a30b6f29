using ModelHost.Agent.Backends;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Docker;

namespace ModelHost.Agent.Runtimes;

/// <summary>Starts and ends engines in one way: as containers, or as processes.</summary>
internal interface IEngineRuntime
{
    /// <summary>Name in launch specs and reports.</summary>
    string Name { get; }

    /// <summary>All engines of this cluster, running or ended, but those of runs that are known already; complete.</summary>
    /// <exception cref="RuntimeException">The runtime does not answer.</exception>
    Task<IReadOnlyList<EngineInstance>> ListAsync(IReadOnlySet<string> knownRuns, CancellationToken cancellationToken);

    /// <summary>Gets ready what the engine needs and starts it.</summary>
    /// <exception cref="RuntimeException">
    /// It could not be started; nothing of it is left, except when <see cref="RuntimeException.IsSilence"/>: asking again cleans up.
    /// </exception>
    Task<EngineInstance> LaunchAsync(EngineLaunch launch, Action<LaunchProgress> progress, CancellationToken cancellationToken);

    /// <summary>Completes when the engine has ended.</summary>
    /// <returns>Null: it is gone without a trace.</returns>
    /// <exception cref="RuntimeException">The runtime does not answer; the engine may well run.</exception>
    Task<EngineExit?> WaitAsync(EngineInstance instance, CancellationToken cancellationToken);

    /// <summary>The engine's output from a position on, as it comes; ends with the engine.</summary>
    /// <exception cref="RuntimeException">The output broke off.</exception>
    IAsyncEnumerable<OutputLine> FollowAsync(EngineInstance instance, string? position, CancellationToken cancellationToken);

    /// <summary>Ends the engine and removes what is left of it. One that is gone is no error.</summary>
    /// <exception cref="RuntimeException">It could not be ended.</exception>
    Task RemoveAsync(EngineInstance instance, TimeSpan grace, CancellationToken cancellationToken);

    /// <summary>Whether a process of this machine is part of the engine.</summary>
    bool Owns(EngineInstance instance, ProcessOrigin process);
}

/// <summary>What to start.</summary>
internal sealed record EngineLaunch(
    string DeploymentUid, string RunId, LaunchSpec Spec, BackendRecipe Recipe, IReadOnlyDictionary<string, string> Env, string LatestVersion,
    int EnginePort, string EngineKey, Lease Lease)
{
    /// <summary>Of a gRPC backend: how this node starts it.</summary>
    public BackendInstall? Install { get; init; }
}

/// <summary>How far a launch is.</summary>
internal sealed record LaunchProgress(string Detail, PullProgress? Pull = null, string? Line = null);

/// <summary>An engine that a runtime started.</summary>
internal sealed record EngineInstance(
    string Id, string DeploymentUid, string RunId, string SpecJson, int EnginePort, string EngineKey, string Image, string ImageDigest,
    string EngineVersion, IReadOnlyList<string> Secrets)
{
    /// <summary>Of one that was found: the values of the variables that its spec names.</summary>
    public IReadOnlyDictionary<string, string> Env { get; init; } = new Dictionary<string, string>();

    /// <summary>Of one that was found: the lease it was started with, where the runtime keeps it.</summary>
    public Lease? Lease { get; init; }

    /// <summary>Where it listens.</summary>
    public Uri Url { get; init; } = new($"http://127.0.0.1:{EnginePort}");

    /// <summary>Of one that was found: whether it has ended, as far as the runtime knows at once.</summary>
    public bool IsEnded { get; init; }

    /// <summary>The values of the variables that a spec names.</summary>
    public static Dictionary<string, string> Named(string specJson, Func<string, string?> value) =>
        (LaunchSpec.FromJson(specJson)?.EnvVarKeys ?? []).Distinct().Select(key => (key, value: value(key))).Where(pair => pair.value is not null)
            .ToDictionary(pair => pair.key, pair => pair.value!);
}

/// <summary>How an engine ended.</summary>
internal sealed record EngineExit(int? ExitCode, bool OomKilled = false, string? Message = null)
{
    /// <summary>The cause, where the runtime knows it; null: the log has to do.</summary>
    public EngineFailure? Failure { get; init; }
}

/// <summary>A line of an engine's output.</summary>
/// <param name="Text">Without line end.</param>
/// <param name="Position">Where to go on after this line.</param>
/// <param name="At">When it was written; null: unknown.</param>
internal readonly record struct OutputLine(string Text, string Position, DateTimeOffset? At);

/// <summary>A runtime did not do what it was asked.</summary>
/// <param name="message">What it said.</param>
/// <param name="inner">Where that came from.</param>
/// <param name="silent">Whether it was not reached at all: it refused nothing, and may do it later.</param>
internal sealed class RuntimeException(string message, Exception? inner = null, bool silent = false) : Exception(message, inner)
{
    /// <summary>Whether the runtime was not reached, or broke off.</summary>
    public bool IsSilence => silent;

    /// <summary>The cause, where the runtime knows it; null: its words have to do.</summary>
    public EngineFailure? Failure { get; init; }
}
