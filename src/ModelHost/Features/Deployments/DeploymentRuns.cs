using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Data;

namespace ModelHost.Features.Deployments;

/// <summary>The runs of deployments.</summary>
internal sealed class DeploymentRuns(Database database)
{
    /// <summary>The runs of a deployment that are kept, newest first.</summary>
    public async Task<Result<IReadOnlyList<RunRead>>> ListAsync(int id, CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        if (!await db.Deployments.AnyAsync(d => d.Id == id, cancellationToken))
            return DeploymentFailures.NotFound(id);
        return await db.Runs.AsNoTracking().Where(run => run.DeploymentId == id).OrderByDescending(run => run.StartedAt).ThenByDescending(run => run.Id)
            .Select(run => new RunRead
            {
                Id = run.Id,
                DeploymentId = run.DeploymentId,
                StartedAt = run.StartedAt,
                ReadyAt = run.ReadyAt,
                EndedAt = run.EndedAt,
                ExitCode = run.ExitCode,
                ErrorCode = run.ErrorCode,
                Error = run.Error,
                LoadSeconds = run.LoadSeconds,
                EngineVersion = run.EngineVersion,
            }).ToListAsync(cancellationToken);
    }
}
