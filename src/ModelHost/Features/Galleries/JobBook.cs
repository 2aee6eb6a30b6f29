using System.Collections.Concurrent;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Events;

namespace ModelHost.Features.Galleries;

/// <summary>Asks for a job.</summary>
/// <param name="Kind">What is done: <see cref="IJobHandler.Kind"/>.</param>
/// <param name="Subject">What it is done to, such as <c>model:NAME</c>: jobs of one subject run one after another.</param>
/// <param name="Element">The element as it was asked for.</param>
/// <param name="Request">What the handler needs to know, as JSON.</param>
/// <param name="IsDeletion">Whether something is deleted.</param>
internal sealed record JobRequest(string Kind, string Subject, string Element, string Request, bool IsDeletion = false);

/// <summary>
/// All jobs that are kept. Their states are rows of the database, written before anybody is told of them; what they are at between two states is in memory
/// only, for a job that is resumed begins anew.
/// </summary>
internal sealed class JobBook(Database database, IOptions<GalleryOptions> options, ChangeFeed feed, TimeProvider time)
{
    private readonly ConcurrentDictionary<string, JobEntry> _jobs = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>Called when there may be something to run.</summary>
    public event Action? Queued;

    /// <summary>All of them, oldest first.</summary>
    public IReadOnlyList<JobEntry> All => [.. _jobs.Values.OrderBy(job => job.Id)];

    /// <summary>One of them; null: it is not known, or no longer.</summary>
    public JobEntry? Find(string uid) => _jobs.GetValueOrDefault(uid);

    /// <summary>Reads what is stored. What ran when the process ended is queued again.</summary>
    public async Task LoadAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        foreach (var row in await db.Jobs.AsNoTracking().OrderBy(job => job.Id).ToListAsync(cancellationToken))
        {
            var status = JsonSerializer.Deserialize(row.Status, JobJson.Default.JobStatus) ?? new JobStatus();
            if (row.State == JobState.Running)
            {
                var queued = QueuedStatus(row.Element, row.IsDeletion);
                (row.State, status) = (JobState.Queued, status.Committed ? queued with { Committed = true, Cancellable = false, Nodes = status.Nodes } : queued);
            }
            _jobs[row.Uid] = new JobEntry(row, status);
        }
    }

    /// <summary>Stores a job; it runs as soon as there is room.</summary>
    public async Task<Result<JobEntry>> AddAsync(JobRequest request, CancellationToken cancellationToken)
    {
        if (_jobs.Values.Count(job => job.State == JobState.Queued) >= options.Value.MaxQueuedJobs)
            return new Failure(FailureKind.Unavailable, "jobs.full", $"{options.Value.MaxQueuedJobs} jobs are waiting already (Galleries:MaxQueuedJobs)");
        var status = QueuedStatus(request.Element, request.IsDeletion);
        var row = new Job
        {
            Uid = Guid.NewGuid().ToString(),
            Kind = request.Kind,
            Subject = request.Subject,
            Element = request.Element,
            IsDeletion = request.IsDeletion,
            Request = request.Request,
            Status = JsonSerializer.Serialize(status, JobJson.Default.JobStatus),
            CreatedAt = time.GetUtcNow(),
        };
        await using (var db = await database.OpenAsync(cancellationToken))
        {
            db.Jobs.Add(row);
            await database.SaveAsync(db, cancellationToken);
        }
        var entry = new JobEntry(row, status);
        _jobs[row.Uid] = entry;
        feed.Publish(Change.Jobs);
        Queued?.Invoke();
        return entry;
    }

    /// <summary>Cancels a job: it is over for whoever asks, from now on. What it has under way is given up.</summary>
    public async Task<Result<JobEntry>> CancelAsync(string uid, CancellationToken cancellationToken)
    {
        if (Find(uid) is not { } job)
            return NotFound;
        if (!job.TryEnd(JobState.Cancelled, status => status with { Cancelled = true, Message = "cancelled", Nodes = status.Nodes?.Select(Given).ToArray() }))
            return new Failure(FailureKind.Conflict, "job.not_cancellable", job.Status.Processed ? "the job has ended already" : "the job cannot be cancelled any more");
        // it is over: whoever asked may be gone, and the disk full
        try
        {
            await StoreAsync(job, CancellationToken.None);
        }
        finally
        {
            await job.CancelAsync();
        }
        return job;
    }

    /// <summary>The failure of an id that is not known.</summary>
    public static Failure NotFound { get; } = new(FailureKind.NotFound, "job.not_found", "could not find any status for ID");

    /// <summary>Stores the state of a job, and tells of it.</summary>
    public async Task StoreAsync(JobEntry job, CancellationToken cancellationToken)
    {
        // in the order in which states follow each other: the last one written is the last one
        await job.Writes.WaitAsync(cancellationToken);
        try
        {
            await using var db = await database.OpenAsync(cancellationToken);
            if (await db.Jobs.FirstOrDefaultAsync(row => row.Id == job.Id, cancellationToken) is not { } row)
                return;
            var (state, status) = job.Snapshot;
            var now = time.GetUtcNow();
            (row.State, row.Status, row.Attempts, row.Request) = (state, JsonSerializer.Serialize(status, JobJson.Default.JobStatus), job.Attempts, job.Request);
            row.StartedAt ??= state == JobState.Running ? now : null;
            row.FinishedAt = job.FinishedAt = status.Processed ? row.FinishedAt ?? now : null;
            await database.SaveAsync(db, cancellationToken);
        }
        finally
        {
            job.Writes.Release();
        }
        feed.Publish(Change.Jobs);
    }

    /// <summary>Forgets outcomes that are old, or too many.</summary>
    public async Task PruneAsync(CancellationToken cancellationToken)
    {
        var oldest = time.GetUtcNow() - options.Value.KeepJobs;
        var ended = _jobs.Values.Where(job => job.FinishedAt is not null).OrderByDescending(job => job.FinishedAt).ToArray();
        var old = ended.Where((job, index) => index >= options.Value.MaxKeptJobs || job.FinishedAt < oldest).ToArray();
        if (old.Length == 0)
            return;
        await using var db = await database.OpenAsync(cancellationToken);
        await using (var transaction = await database.BeginAsync(db, cancellationToken))
        {
            foreach (var ids in old.Select(job => job.Id).Chunk(500))
                await db.Jobs.Where(row => ids.Contains(row.Id)).ExecuteDeleteAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        foreach (var job in old)
            _jobs.TryRemove(job.Uid, out _);
    }

    // what a node has is told as it is; nothing goes on there any more
    private static JobNode Given(JobNode node) => node.Status is "success" or "error" ? node : node with { Status = "error", Error = "cancelled", Phase = null };

    private static JobStatus QueuedStatus(string element, bool isDeletion) => new()
    {
        Deletion = isDeletion,
        Message = "queued",
        Phase = JobPhases.Queued,
        GalleryElementName = element,
        Cancellable = true,
    };
}
