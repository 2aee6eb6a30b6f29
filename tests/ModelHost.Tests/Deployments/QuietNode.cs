using Google.Protobuf;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>A second node that says what it is told to and does nothing: what is started on it stays as it was stored.</summary>
internal sealed class QuietNode : NodeStandIn
{
    private readonly ControlPlane _host;
    private readonly NodeHandle _handle;

    private QuietNode(ControlPlane host, int id)
    {
        _host = host;
        Id = id;
        _handle = new NodeHandle(id, this, host.Services.GetRequiredService<LiveSettings>(), "quiet");
        host.Services.GetRequiredService<NodeRegistry>().Add(_handle);
    }

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Id of the node in the API.</summary>
    public int Id { get; }

    /// <summary>The pieces of the log of every run.</summary>
    public Func<IAsyncEnumerable<LogPiece>> Log { get; set; } = () => Pieces();

    /// <summary>Runs whose end was asked for.</summary>
    public List<string> Stopped { get; } = [];

    /// <summary>The models, backends and images that it has.</summary>
    public ArtifactsReply Has { get; } = new();

    /// <summary>What it does when it is asked what it has: it tells.</summary>
    public Action Tells { get; set; } = () => { };

    /// <summary>What it says of the use of its public ports.</summary>
    public Func<UsageRequest, UsageReply> Usage { get; set; } = _ => new UsageReply();

    /// <summary>The link to it.</summary>
    public NodeHandle Handle => _handle;

    /// <summary>What it was asked to get.</summary>
    public List<PullRequest> Pulled { get; } = [];

    /// <summary>What it was asked to delete.</summary>
    public List<string> Deleted { get; } = [];

    /// <summary>What it does when it is asked to delete something: it does.</summary>
    public Func<DeleteArtifactRequest, DeleteArtifactReply> Deletes { get; set; } = _ => new DeleteArtifactReply();

    /// <summary>Makes one with a process runtime and GPUs of 80 GB.</summary>
    /// <param name="host">The control plane that it is of.</param>
    /// <param name="gpus">How many GPUs it has.</param>
    /// <param name="isHeard">Whether it has been heard.</param>
    public static async Task<QuietNode> AddAsync(ControlPlane host, int gpus = 0, bool isHeard = true)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        var row = new Node { Uid = Guid.NewGuid().ToString(), Hostname = "quiet", IpAddress = "127.0.0.2" };
        db.Nodes.Add(row);
        await db.SaveChangesAsync(Ct);
        var node = new QuietNode(host, row.Id);
        var report = new NodeReport { Hostname = "quiet", Runtimes = { "process" } };
        for (var i = 0; i < gpus; i++)
            report.Gpus.Add(new Gpu { Index = i, Name = $"GPU model {i}", MemoryTotalBytes = 80L << 30, MemoryUsedBytes = 0 });
        if (isHeard)
            node.Says(report);
        return node;
    }

    /// <summary>Lets it report.</summary>
    public void Says(NodeReport report) => _handle.Heard(report, DateTimeOffset.UnixEpoch);

    /// <summary>Lets it be silent beyond the threshold.</summary>
    public void FallsSilent()
    {
        for (var i = 0; !_handle.IsUnreachable; i++)
            _handle.Silent(DateTimeOffset.UnixEpoch.AddHours(i), "it is to be silent");
    }

    /// <summary>Writes to a deployment's row, as reconciliation does.</summary>
    public async Task ChangeAsync(int id, Action<Deployment> change)
    {
        await using var db = await _host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        var row = await db.Deployments.FindAsync([id], Ct);
        change(row!);
        row!.Version++;
        if (!row.Status.IsActive())
        {
            row.ReservedPort = null;
            db.PublicNames.RemoveRange(db.PublicNames.Where(name => name.DeploymentId == id));
        }
        await db.SaveChangesAsync(Ct);
    }

    /// <summary>Lets a deployment stand somewhere.</summary>
    public Task SetAsync(int id, DeploymentStatus status) => ChangeAsync(id, row => (row.Status, row.Wanted) = (status, status switch
    {
        DeploymentStatus.Stopped or DeploymentStatus.Stopping => WantedState.Stopped,
        DeploymentStatus.Expired => WantedState.Expired,
        DeploymentStatus.Error => WantedState.Failed,
        _ => WantedState.Running,
    }));

    /// <summary>A deployment's row as it is stored.</summary>
    public async Task<Deployment> RowAsync(int id)
    {
        await using var db = await _host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return (await db.Deployments.FindAsync([id], Ct))!;
    }

    /// <summary>Texts as pieces of a log.</summary>
    public static async IAsyncEnumerable<LogPiece> Pieces(params string[] texts)
    {
        foreach (var text in texts)
        {
            await Task.Yield();
            yield return new LogPiece { Data = ByteString.CopyFromUtf8(text) };
        }
    }

    public override Task<StopReply> StopAsync(StopRequest request, CancellationToken cancellationToken)
    {
        Stopped.Add(request.RunId);
        return Task.FromResult(new StopReply());
    }

    public override Task<UsageReply> UsageAsync(UsageRequest request, CancellationToken cancellationToken) => Task.FromResult(Usage(request));

    public override Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken) => Task.FromResult(_handle.LastReport!);

    public override IAsyncEnumerable<LogPiece> LogFileAsync(LogsRequest request, CancellationToken cancellationToken) => Log();

    public override async IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
    {
        yield return new ReportUpdate { Sequence = 1, Report = _handle.LastReport };
        await Task.Delay(Timeout.Infinite, cancellationToken);
    }

    /// <summary>Has at once what it is asked to get, and says so.</summary>
    public override Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken)
    {
        Pulled.Add(request);
        var digest = $"sha256:{new string('d', 64)}";
        Has.Artifacts.Add(new Artifact { Kind = request.Kind, Name = request.Name, Version = request.Kind == ArtifactKind.Image ? request.Name.Split(':')[^1] : request.Version, Digest = digest, PullId = request.PullId });
        var report = _handle.LastReport!.Clone();
        report.Pulls.Add(new Pull { PullId = request.PullId, Kind = request.Kind, Name = request.Name, Phase = PullPhase.Done, Digest = digest });
        Says(report);
        return Task.FromResult(new PullReply());
    }

    public override Task<DeleteArtifactReply> DeleteArtifactAsync(DeleteArtifactRequest request, CancellationToken cancellationToken)
    {
        Deleted.Add(request.Name);
        var reply = Deletes(request);
        if (!reply.UnderWay && Has.Artifacts.FirstOrDefault(artifact => artifact.Kind == request.Kind && artifact.Name == request.Name) is { } gone)
            Has.Artifacts.Remove(gone);
        return Task.FromResult(reply);
    }

    public override Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken)
    {
        Tells();
        return Task.FromResult(Has.Clone());
    }
}
