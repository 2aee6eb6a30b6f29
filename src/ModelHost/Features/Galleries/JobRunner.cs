using System.Threading.Channels;
using Microsoft.Extensions.Options;
using ModelHost.Core;

namespace ModelHost.Features.Galleries;

/// <summary>Does the jobs of one kind. Beginning anew must be harmless: a job that a crash interrupts is run once more from its request.</summary>
internal interface IJobHandler
{
    /// <summary>The kind, as it is stored: <c>model.install</c>.</summary>
    string Kind { get; }

    /// <summary>Does a job.</summary>
    /// <param name="job">What is asked, and where progress is told.</param>
    /// <param name="cancellationToken">The job was cancelled, or the process ends: then it is resumed with the next one.</param>
    /// <returns>Why it failed; null: it did not. What was there before it is untouched then, unless the failure says otherwise.</returns>
    Task<Failure?> RunAsync(JobContext job, CancellationToken cancellationToken);
}

/// <summary>A job as its handler sees it.</summary>
internal sealed class JobContext(JobEntry job, JobBook jobs)
{
    /// <summary>Its id.</summary>
    public string Uid => job.Uid;

    /// <summary>The element as it was asked for.</summary>
    public string Element => job.Element;

    /// <summary>What is asked, as JSON.</summary>
    public string Request => job.Request;

    /// <summary>Whether it was begun before, and interrupted.</summary>
    public bool IsResumed => job.Attempts > 1;

    /// <summary>Whether it was cancelled, and not only interrupted.</summary>
    public bool IsCancelled => job.State == JobState.Cancelled;

    /// <summary>Says what goes on now.</summary>
    public void Phase(string phase, string message) => job.Show(status => (status with { Phase = phase }).At(message));

    /// <summary>Says what whoever asked should know when it has ended well.</summary>
    public void Note(string? note) => job.Show(status => status with { Note = note });

    /// <summary>Says how far a file is.</summary>
    /// <param name="file">The file.</param>
    /// <param name="current">Its bytes so far.</param>
    /// <param name="total">Its bytes; 0: not known.</param>
    /// <param name="percent">How far the whole job is.</param>
    public void File(string file, long current, long total, double percent)
    {
        var (downloaded, size) = (JobStatus.Size(current), total > 0 ? JobStatus.Size(total) : "");
        job.Show(status => (status with
        {
            Phase = JobPhases.Downloading,
            FileName = file,
            CurrentBytes = current,
            TotalBytes = total,
            DownloadedSize = downloaded,
            FileSize = size,
            Progress = Math.Round(Math.Clamp(percent, 0, 100), 2),
        }).At($"processing file: {file}. Total: {(size.Length > 0 ? size : "unknown")}. Current: {downloaded}"));
    }

    /// <summary>Says how far a node is.</summary>
    public void Node(JobNode node) => job.Show(status => status.With(node));

    /// <summary>
    /// Passes the point from which the job is not cancelled any more: what follows is short, and done whole. It is stored before the answer, so that a job that is
    /// interrupted then is run again as one that has passed it.
    /// </summary>
    /// <param name="request">Takes the place of <see cref="Request"/>: all that is needed for what follows.</param>
    /// <param name="cancellationToken">Gives up, before the point.</param>
    /// <returns>False: it has been cancelled, and must change nothing.</returns>
    public async Task<bool> TryCommitAsync(string request, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (!job.TryCommit(request))
            return false;
        try
        {
            await jobs.StoreAsync(job, CancellationToken.None);
            return true;
        }
        catch
        {
            job.Uncommit();
            throw;
        }
    }
}

/// <summary>Runs jobs in the order in which they were asked for, some at a time, those of one subject one after another.</summary>
internal sealed partial class JobRunner : BackgroundService
{
    private const int MaxAttempts = 5;
    private static readonly TimeSpan PrunePeriod = TimeSpan.FromMinutes(10);

    private readonly JobBook _jobs;
    private readonly Dictionary<string, IJobHandler> _handlers;
    private readonly GalleryOptions _options;
    private readonly TimeProvider _time;
    private readonly ILogger<JobRunner> _logger;
    private readonly Channel<bool> _wake = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    public JobRunner(JobBook jobs, IEnumerable<IJobHandler> handlers, IOptions<GalleryOptions> options, TimeProvider time, ILogger<JobRunner> logger)
    {
        (_jobs, _options, _time, _logger) = (jobs, options.Value, time, logger);
        _handlers = handlers.ToDictionary(handler => handler.Kind);
        _jobs.Queued += Wake;
    }

    public override async Task StartAsync(CancellationToken cancellationToken)
    {
        await _jobs.LoadAsync(cancellationToken);
        await base.StartAsync(cancellationToken);
    }

    public override void Dispose()
    {
        _jobs.Queued -= Wake;
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var running = new Dictionary<string, Task>();
        Task woken = Task.CompletedTask;
        using var prune = new Timer(_ => Wake(), null, PrunePeriod, PrunePeriod);
        try
        {
            while (!stoppingToken.IsCancellationRequested)
            {
                foreach (var subject in running.Where(run => run.Value.IsCompleted).Select(run => run.Key).ToArray())
                    running.Remove(subject);
                await PruneAsync(stoppingToken);
                foreach (var job in _jobs.All.Where(job => job.State == JobState.Queued))
                {
                    if (running.Count >= _options.ParallelJobs)
                        break;
                    if (!running.ContainsKey(job.Subject))
                        running[job.Subject] = Task.Run(() => RunAsync(job, stoppingToken), CancellationToken.None);
                }
                // for the ends of runs themselves, not for word of them: one that sends it has not ended yet, and still takes its place
                if (woken.IsCompleted)
                    woken = _wake.Reader.ReadAsync(stoppingToken).AsTask();
                await Task.WhenAny([woken, .. running.Values]);
            }
        }
        finally
        {
            await Task.WhenAll(running.Values); // also when the process ends while old ones are forgotten
        }
    }

    private void Wake() => _wake.Writer.TryWrite(true);

    private async Task RunAsync(JobEntry job, CancellationToken stoppingToken)
    {
        try
        {
            using var run = CancellationTokenSource.CreateLinkedTokenSource(stoppingToken);
            if (!job.TryBegin(run))
                return;
            job.Show(status => (status with { Cancellable = !status.Deletion && !status.Committed }).At($"processing {job.Kind.Split('.')[0]}: {job.Element}"));
            await _jobs.StoreAsync(job, stoppingToken);
            if (job.Attempts > 1)
                LogGoesOn(job.Kind, job.Element, job.Uid);
            else
                LogBegun(job.Kind, job.Element, job.Uid);
            var failure = await HandleAsync(job, run.Token);
            if (failure is null)
                job.TryEnd(JobState.Done, Completed);
            else
                job.TryEnd(JobState.Failed, status => Failed(status, failure));
            await _jobs.StoreAsync(job, CancellationToken.None);
            if (failure is null)
                LogEnded(job.Kind, job.Element, job.Uid, job.Status.Message);
            else
                LogFailed(job.Kind, job.Element, job.Uid, failure.Detail);
        }
#pragma warning disable CA1031 // what breaks as the process ends, a call that is cut off for example, says nothing about the job
        catch (Exception) when (stoppingToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            job.Requeue(); // its row says so already, or says that it runs, which comes to the same
        }
        catch (OperationCanceledException) when (job.State == JobState.Cancelled)
        {
            LogEnded(job.Kind, job.Element, job.Uid, job.Status.Message);
        }
#pragma warning disable CA1031 // a job must not end the others
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogBroken(e, job.Kind, job.Element, job.Uid);
            if (job.TryEnd(JobState.Failed, status => Failed(status, new Failure(FailureKind.Unavailable, "job.broken", $"something went wrong inside ModelHost; its log says what{Half(status)}"))))
                await StoreAnywayAsync(job);
        }
        finally
        {
            job.EndRun();
        }
    }

    private async Task<Failure?> HandleAsync(JobEntry job, CancellationToken cancellationToken)
    {
        if (!_handlers.TryGetValue(job.Kind, out var handler))
            return new Failure(FailureKind.Conflict, "job.unknown_kind", $"this version does not know jobs of the kind {job.Kind}");
        if (job.Attempts > MaxAttempts)
            return new Failure(FailureKind.Conflict, "job.given_up", $"it was interrupted {MaxAttempts} times, and is not tried again{Half(job.Status)}");
        return await handler.RunAsync(new JobContext(job, _jobs), cancellationToken);
    }

    // of one that was at its last step nobody knows how far that went
    private static string Half(JobStatus status) =>
        status.Committed ? "; it was putting what it had into its place, so that some nodes may have the new and others the old: have it installed again" : "";

    // as LocalAI shows them: what was told on the way is over
    private static JobStatus Completed(JobStatus status) => new()
    {
        Deletion = status.Deletion,
        Message = status.Note is { } note ? $"completed; {note}" : "completed",
        Progress = 100,
        GalleryElementName = status.GalleryElementName,
        Nodes = status.Nodes,
    };

    private static JobStatus Failed(JobStatus status, Failure failure) => new()
    {
        Deletion = status.Deletion,
        Error = failure.Detail,
        Message = $"error: {failure.Detail}",
        GalleryElementName = status.GalleryElementName,
        Nodes = status.Nodes,
    };

    private async Task StoreAnywayAsync(JobEntry job)
    {
        try
        {
            await _jobs.StoreAsync(job, CancellationToken.None);
        }
#pragma warning disable CA1031 // the database does not take it: after a restart the job is tried again
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogBroken(e, job.Kind, job.Element, job.Uid);
        }
    }

    private async Task PruneAsync(CancellationToken cancellationToken)
    {
        try
        {
            await _jobs.PruneAsync(cancellationToken);
        }
#pragma warning disable CA1031 // the next time
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            LogPruneFailed(e);
        }
    }

    [LoggerMessage(3011, LogLevel.Information, "Job {JobKind} of {Element} begins ({JobId}).")]
    private partial void LogBegun(string jobKind, string element, string jobId);

    [LoggerMessage(3012, LogLevel.Information, "Job {JobKind} of {Element} has ended ({JobId}): {Outcome}")]
    private partial void LogEnded(string jobKind, string element, string jobId, string outcome);

    [LoggerMessage(3015, LogLevel.Information, "Job {JobKind} of {Element}, which was interrupted, goes on ({JobId}).")]
    private partial void LogGoesOn(string jobKind, string element, string jobId);

    [LoggerMessage(3016, LogLevel.Warning, "Job {JobKind} of {Element} has failed ({JobId}): {Reason}")]
    private partial void LogFailed(string jobKind, string element, string jobId, string reason);

    [LoggerMessage(3013, LogLevel.Error, "Job {JobKind} of {Element} broke ({JobId}).")]
    private partial void LogBroken(Exception exception, string jobKind, string element, string jobId);

    [LoggerMessage(3014, LogLevel.Warning, "Old jobs could not be forgotten; it is tried again.")]
    private partial void LogPruneFailed(Exception exception);
}
