using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using ModelHost.Cluster;
using ModelHost.Hosting;

namespace ModelHost.TestKit;

/// <summary>The clock of the machine, put forward or back.</summary>
public sealed class MovedClock : TimeProvider
{
    /// <summary>By how much.</summary>
    public TimeSpan By { get; set; }

    public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + By;
}

/// <summary>The agent of a node in this process, as <c>modelhost node</c> runs it: it joins, listens on a free loopback port and sends heartbeats.</summary>
public sealed class NodeAgent : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly DataFolder _folder;
    private readonly Membership _membership;
    private readonly bool _ownsNode;

    private NodeAgent(WebApplication app, DataFolder folder, Membership membership, TestNode node, bool ownsNode) =>
        (_app, _folder, _membership, Node, _ownsNode) = (app, folder, membership, node, ownsNode);

    /// <summary>The node's surroundings.</summary>
    public TestNode Node { get; }

    /// <summary>Its own id.</summary>
    public string Uid => _folder.NodeId;

    /// <summary>Where it listens.</summary>
    public Uri Url => new(_app.Urls.First());

    /// <summary>Its certificate of now, with its key.</summary>
    public X509Certificate2 Certificate => _membership.Certificate;

    /// <summary>Starts one.</summary>
    /// <param name="join">Host and port of the control plane; null: it has joined before.</param>
    /// <param name="token">The join token; null: it has joined before.</param>
    /// <param name="node">Its surroundings; null: those of a node without GPUs or Docker, which go with it.</param>
    /// <param name="name">What it calls itself.</param>
    /// <param name="time">Its clock.</param>
    /// <param name="port">Where it listens on loopback. Default: where it is free.</param>
    public static async Task<NodeAgent> StartAsync(string? join, string? token, TestNode? node = null, string name = "gpu-1", TimeProvider? time = null, int port = 0)
    {
        var surroundings = node ?? new TestNode();
        var folder = DataFolder.Open(surroundings.Data);
        var clock = time ?? TimeProvider.System;
        Membership? membership = null;
        try
        {
            var settings = new NodeSettings
            {
                Data = surroundings.Data,
                Join = join,
                Token = token,
                Name = name,
                Listen = $"127.0.0.1:{port}",
                Configuration = [.. surroundings.Configuration.Where(setting => setting.StartsWith("Node:", StringComparison.Ordinal) || setting.StartsWith("Downloads:", StringComparison.Ordinal))],
            };
            membership = await NodeHost.MembershipAsync(settings, folder, clock, CancellationToken.None);
            var app = NodeHost.Build(settings, folder, membership, clock);
            await app.StartAsync();
            return new NodeAgent(app, folder, membership, surroundings, ownsNode: node is null);
        }
        catch
        {
            membership?.Dispose();
            folder.Dispose();
            if (node is null)
                surroundings.Dispose();
            throw;
        }
    }

    /// <summary>Gets another certificate, whether it is due or not.</summary>
    public Task RenewAsync() => _membership.RenewAsync(CancellationToken.None);

    /// <summary>Whether two thirds of the certificate's life are over.</summary>
    public bool IsRenewalDue => _membership.IsRenewalDue();

    /// <summary>Ends it as SIGTERM does; its engines go on.</summary>
    public async ValueTask DisposeAsync()
    {
        using var soon = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        await _app.StopAsync(soon.Token);
        await _app.DisposeAsync();
        _membership.Dispose();
        _folder.Dispose();
        if (_ownsNode)
            Node.Dispose();
    }
}
