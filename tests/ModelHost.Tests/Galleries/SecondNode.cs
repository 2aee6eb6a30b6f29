using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Artifacts;
using ModelHost.Tests.Nodes;

namespace ModelHost.Tests.Galleries;

/// <summary>A second node that really downloads and installs, with a link that can fail.</summary>
internal sealed class SecondNode : NodeStandIn, IAsyncDisposable
{
    private const string Name = "second";
    private readonly TestNode _surroundings = new();
    private readonly LocalNode _node;
    private readonly CancellationTokenSource _ended = new();
    private Task _reports = Task.CompletedTask;

    private SecondNode(LocalNode node, TestNode surroundings) => (_node, _surroundings) = (node, surroundings);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Id of the node in the API.</summary>
    public int Id { get; private set; }

    /// <summary>Its data folder.</summary>
    public string Data => _surroundings.Data;

    /// <summary>What the word to take its place comes to; null: it is heard.</summary>
    public Exception? Refuses { get; set; }

    /// <summary>Whether it knows nothing of pulls that are held.</summary>
    public bool IsOld { get; set; }

    /// <summary>How often it was to let something take its place.</summary>
    public int Commits { get; set; }

    public static async Task<SecondNode> StartAsync()
    {
        var surroundings = new TestNode();
        return new SecondNode(await NodeRuns.OpenAsync(surroundings, Pulls.Options()), surroundings);
    }

    /// <summary>Links it to a control plane, which may know it from before.</summary>
    public async Task LinkAsync(ControlPlane host)
    {
        await using (var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct))
        {
            var row = await db.Nodes.FirstOrDefaultAsync(node => node.Hostname == Name, Ct) ?? db.Nodes.Add(new Node { Uid = Guid.NewGuid().ToString(), Hostname = Name, IpAddress = "127.0.0.2" }).Entity;
            await db.SaveChangesAsync(Ct);
            Id = row.Id;
        }
        var handle = new NodeHandle(Id, this, host.Services.GetRequiredService<LiveSettings>(), Name);
        host.Services.GetRequiredService<NodeRegistry>().Add(handle);
        _reports = Task.WhenAll(_reports, ReportAsync(handle));
    }

    public override Task<PullReply> PullAsync(PullRequest request, CancellationToken cancellationToken)
    {
        var heard = request.Clone();
        heard.Hold = request.Hold && !IsOld;
        return _node.PullAsync(heard, cancellationToken);
    }

    public override Task<CancelPullReply> CancelPullAsync(CancelPullRequest request, CancellationToken cancellationToken) => _node.CancelPullAsync(request, cancellationToken);

    public override Task<CommitPullReply> CommitPullAsync(CommitPullRequest request, CancellationToken cancellationToken)
    {
        Commits++;
        return Refuses is null ? _node.CommitPullAsync(request, cancellationToken) : Task.FromException<CommitPullReply>(Refuses);
    }

    public override Task<NodeReport> ReportAsync(ReportRequest request, CancellationToken cancellationToken) => _node.ReportAsync(request, cancellationToken);

    public override Task<ArtifactsReply> ArtifactsAsync(ArtifactsRequest request, CancellationToken cancellationToken) => _node.ArtifactsAsync(request, cancellationToken);

    public override IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, CancellationToken cancellationToken) => _node.WatchAsync(request, cancellationToken);

    public async ValueTask DisposeAsync()
    {
        await _ended.CancelAsync();
        await _reports;
        await _node.DisposeAsync();
        _ended.Dispose();
        _surroundings.Dispose();
    }

    private async Task ReportAsync(NodeHandle handle)
    {
        while (!_ended.IsCancellationRequested)
        {
            handle.Heard(await _node.ReportAsync(new ReportRequest(), CancellationToken.None), DateTimeOffset.UtcNow);
            await Task.Delay(100, _ended.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }
}
