using Microsoft.EntityFrameworkCore;
using ModelHost.Core;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Features.Deployments;

/// <summary>Hands out whole logs.</summary>
internal sealed class DeploymentLogFiles(Database database, NodeRegistry nodes, TimeProvider time)
{
    private static readonly TimeSpan FirstPiece = TimeSpan.FromSeconds(10);

    /// <summary>
    /// Opens the log of the latest run, as it stands now. The first piece is there before the answer begins: what fails up to then is an
    /// error and no short file.
    /// </summary>
    public async Task<Result<DeploymentLogFile>> OpenAsync(int id, CancellationToken cancellationToken)
    {
        Deployment? row;
        await using (var db = await database.OpenAsync(cancellationToken))
            row = await db.Deployments.AsNoTracking().FirstOrDefaultAsync(d => d.Id == id, cancellationToken);
        if (row is null)
            return DeploymentFailures.NotFound(id);
        if (nodes.Find(row.NodeId) is not { } node)
            return DeploymentFailures.NodeSilent($"{row.NodeId}");
        var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        IAsyncEnumerator<LogPiece>? pieces = null;
        DeploymentLogFile? file = null;
        try
        {
            pieces = node.Link.LogFileAsync(new LogsRequest { DeploymentUid = row.Uid, RunId = row.RunId }, patience.Token).GetAsyncEnumerator(patience.Token);
            if (!await pieces.MoveNextAsync().AsTask().WaitAsync(FirstPiece, time, cancellationToken))
                return DeploymentFailures.NoLog(id);
            var spec = row.ReadSpec();
            return file = new DeploymentLogFile($"{spec.ModelName.Replace("/", "--", StringComparison.Ordinal)}-{spec.Port}.log", pieces, patience);
        }
#pragma warning disable CA1031 // whatever the link throws means the same: the node did not hand it out
        catch (Exception) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            return DeploymentFailures.LogUnreachable(node.LastReport?.Hostname ?? $"{row.NodeId}");
        }
        finally
        {
            if (file is null)
                await DeploymentLogFile.EndAsync(pieces, patience);
        }
    }
}

/// <summary>A log on its way out, at its first piece.</summary>
/// <param name="name">What it is called where it is stored.</param>
/// <param name="pieces">Its pieces.</param>
/// <param name="patience">Ends the call to the node.</param>
internal sealed class DeploymentLogFile(string name, IAsyncEnumerator<LogPiece> pieces, CancellationTokenSource patience) : IAsyncDisposable
{
    /// <summary>What it is called where it is stored.</summary>
    public string Name => name;

    /// <summary>Writes all of it, piece by piece.</summary>
    public async Task CopyToAsync(Stream stream, CancellationToken cancellationToken)
    {
        do
            await stream.WriteAsync(pieces.Current.Data.Memory, cancellationToken);
        while (await pieces.MoveNextAsync());
    }

    public ValueTask DisposeAsync() => EndAsync(pieces, patience);

    /// <summary>Ends a call to a node, whether it has answered or not.</summary>
    public static async ValueTask EndAsync(IAsyncEnumerator<LogPiece>? pieces, CancellationTokenSource patience)
    {
        await patience.CancelAsync();
        try
        {
            if (pieces is not null)
                await pieces.DisposeAsync();
        }
        catch (NotSupportedException)
        {
            // it has not answered yet, and ends by being cancelled
        }
        patience.Dispose();
    }
}
