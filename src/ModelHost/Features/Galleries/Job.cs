namespace ModelHost.Features.Galleries;

/// <summary>How far a job is: queued, running, then one of the last three for good.</summary>
internal enum JobState
{
    /// <summary>It waits to run, or to run again after a restart.</summary>
    Queued,
    /// <summary>It runs. What is found so after a restart is queued again.</summary>
    Running,
    /// <summary>It ended well.</summary>
    Done,
    /// <summary>It failed.</summary>
    Failed,
    /// <summary>It was cancelled, and nothing that comes later changes that.</summary>
    Cancelled,
}

/// <summary>Something long that was asked for, of models or of backends. One table for both, which outlives the process.</summary>
internal sealed class Job
{
    /// <summary>Counts up: their order.</summary>
    public int Id { get; set; }

    /// <summary>The id in the API, a UUID.</summary>
    public required string Uid { get; set; }

    /// <summary>What is done: <see cref="IJobHandler.Kind"/>.</summary>
    public required string Kind { get; set; }

    /// <summary>What it is done to: jobs of one subject run one after another.</summary>
    public required string Subject { get; set; }

    /// <summary>The element as it was asked for.</summary>
    public required string Element { get; set; }

    /// <summary>Whether something is deleted.</summary>
    public bool IsDeletion { get; set; }

    /// <summary>What its handler needs to know, as JSON: enough to begin anew after a restart, and past its point of no return, to do the rest.</summary>
    public required string Request { get; set; }

    public JobState State { get; set; }

    /// <summary>What the API answers, as JSON, at the last change of <see cref="State"/>.</summary>
    public required string Status { get; set; }

    /// <summary>How often it was begun.</summary>
    public int Attempts { get; set; }

    public DateTimeOffset CreatedAt { get; set; }

    public DateTimeOffset? StartedAt { get; set; }

    public DateTimeOffset? FinishedAt { get; set; }
}
