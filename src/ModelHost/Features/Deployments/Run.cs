using System.ComponentModel;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>One launch of a deployment. The last <see cref="Kept"/> stay, with their logs.</summary>
internal sealed class Run
{
    /// <summary>Runs kept per deployment.</summary>
    public const int Kept = 5;

    public required string Id { get; set; }

    public int DeploymentId { get; set; }

    public DateTimeOffset StartedAt { get; set; }

    public DateTimeOffset? ReadyAt { get; set; }

    public DateTimeOffset? EndedAt { get; set; }

    public int? ExitCode { get; set; }

    public string? ErrorCode { get; set; }

    public string? Error { get; set; }

    public double? LoadSeconds { get; set; }

    public string? EngineVersion { get; set; }

    /// <summary>The current run of a deployment.</summary>
    public static Run Of(Deployment row, DateTimeOffset now) => new() { Id = row.RunId, DeploymentId = row.Id, StartedAt = row.BeginsAt ?? now };

    /// <summary>Takes what the node says.</summary>
    public void Observe(Engine engine)
    {
        if (engine.EngineVersion.Length > 0)
            EngineVersion = engine.EngineVersion;
        if (engine.HasExitCode)
            ExitCode = engine.ExitCode;
        if (!engine.HasReadyAt)
            return;
        ReadyAt = FromSeconds(engine.ReadyAt);
        // an image pull is no part of the load
        LoadSeconds = engine.HasStartedAt ? Math.Round(Math.Max(0, engine.ReadyAt - engine.StartedAt), 3) : null;
    }

    /// <summary>Notes the end; the first one counts.</summary>
    public void End(DateTimeOffset now, RunEnd end, string? code, string? error)
    {
        if (EndedAt is not null)
            return;
        EndedAt = now;
        if (end is RunEnd.Failed or RunEnd.Vanished or RunEnd.TimedOut)
            (ErrorCode, Error) = (code, error);
    }

    /// <summary>A moment as nodes tell it.</summary>
    public static DateTimeOffset FromSeconds(double seconds) => DateTimeOffset.FromUnixTimeMilliseconds((long)(seconds * 1000));
}

/// <summary>What is left of a deleted deployment: containers of it that still run are not taken for new ones.</summary>
internal sealed class Tombstone
{
    public required string Uid { get; set; }

    public int NodeId { get; set; }

    public DateTimeOffset DeletedAt { get; set; }

    // as it was called, for use that nodes tell of later

    public int DeploymentId { get; set; }

    public string Model { get; set; } = "";

    public string Owner { get; set; } = "";
}

/// <summary>One launch of a deployment.</summary>
internal sealed record RunRead
{
    public required string Id { get; init; }
    public required int DeploymentId { get; init; }

    [Description("When it began, or is to begin after a pause.")]
    public required DateTimeOffset StartedAt { get; init; }

    [Description("When its engine first answered; null: it has not yet.")]
    public DateTimeOffset? ReadyAt { get; init; }

    [Description("When it ended; null: it has not yet.")]
    public DateTimeOffset? EndedAt { get; init; }

    [Description("Exit code of the engine, where it ended by itself.")]
    public int? ExitCode { get; init; }

    [Description("Stable name of the cause of its end, where it failed.")]
    public string? ErrorCode { get; init; }

    [Description("What happened and what helps, with the last lines of the log.")]
    public string? Error { get; init; }

    [Description("Seconds from the start of the engine's container or process to its first answer; the image pull is not counted.")]
    public double? LoadSeconds { get; init; }

    public string? EngineVersion { get; init; }
}
