using System.ComponentModel;
using Microsoft.AspNetCore.Http.HttpResults;

namespace ModelHost.Features.Galleries;

/// <summary>The routes of jobs; those of models and of backends show the same jobs.</summary>
internal static class JobEndpoints
{
    /// <summary>Longest that a request waits for the end of a job.</summary>
    private static readonly TimeSpan MaxWait = TimeSpan.FromHours(6);

    /// <summary>Maps them under a prefix.</summary>
    /// <param name="group">The group of it.</param>
    /// <param name="prefix">The prefix, for the names of the routes.</param>
    public static void MapJobs(this RouteGroupBuilder group, string prefix)
    {
        group.MapGet("/jobs", All).WithName($"List{prefix}Jobs").WithSummary("List all jobs that are kept, of models and of backends.").ProducesLocalAiErrors();
        group.MapGet("/jobs/{uuid}", FindAsync).WithName($"Get{prefix}Job").WithSummary("Read how far a job is.")
            .Produces<JobStatus>().ProducesLocalAiErrors();
        group.MapPost("/jobs/{uuid}/cancel", CancelAsync).WithName($"Cancel{prefix}Job").WithSummary("Cancel a job.")
            .WithDescription("It stays cancelled. What was there before the job is as it was.").Produces<JobStatus>().ProducesLocalAiErrors();
    }

    /// <summary>Where the status of a job is read, as the client reached this host.</summary>
    public static string StatusUrl(this HttpRequest request, string prefix, JobEntry job) => $"{request.Scheme}://{request.Host}{request.PathBase}/{prefix}/jobs/{job.Uid}";

    /// <summary>Waits for the end of a job, if that is wanted. Leaving cancels nothing.</summary>
    public static async Task<JobStatus?> EndedAsync(this JobEntry job, bool? wait, TimeProvider time, CancellationToken cancellationToken)
    {
        if (wait != true)
            return null;
        using var limit = new CancellationTokenSource(MaxWait, time);
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
        await job.Ended.WaitAsync(waiting.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        cancellationToken.ThrowIfCancellationRequested();
        return job.Shown;
    }

    private static Ok<Dictionary<string, JobStatus>> All(JobBook jobs) => TypedResults.Ok(jobs.All.ToDictionary(job => job.Uid, job => job.Shown));

    private static async Task<IResult> FindAsync(
        string uuid, [Description("True: answer when the job has ended.")] bool? wait, JobBook jobs, IHostApplicationLifetime lifetime, TimeProvider time, CancellationToken cancellationToken)
    {
        if (jobs.Find(uuid) is not { } job)
            return JobBook.NotFound.ToLocalAi();
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(lifetime.ApplicationStopping, cancellationToken);
        return TypedResults.Ok(await job.EndedAsync(wait, time, waiting.Token) ?? job.Shown);
    }

    private static async Task<IResult> CancelAsync(string uuid, JobBook jobs, CancellationToken cancellationToken) =>
        (await jobs.CancelAsync(uuid, cancellationToken)).Match(job => TypedResults.Ok(job.Shown), GalleryEndpoints.ToLocalAi);
}
