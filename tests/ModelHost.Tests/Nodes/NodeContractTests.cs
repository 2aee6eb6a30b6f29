using System.Net;
using System.Net.Sockets;
using System.Text;
using Microsoft.AspNetCore.Builder;
using ModelHost.Agent.Metering;
using ModelHost.Agent.Proxy;
using ModelHost.Agent.Reports;
using ModelHost.Agent.Service;
using ModelHost.Cluster;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;
using ModelHost.Rpc;
using ModelHost.TestKit;
using ModelHost.Tests.Artifacts;
using ModelHost.Tests.Proxy;
using static ModelHost.Tests.Nodes.NodeRuns;

namespace ModelHost.Tests.Nodes;

/// <summary>What every <see cref="INode"/> promises, whatever lies between it and who asks.</summary>
public abstract partial class NodeContractTests
{
    private static readonly Lease s_forever = new(1, null, null);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private protected abstract Task<Asked> AskedAsync(INode node);

    [Fact]
    public async Task Run_begins_is_reported_and_ends()
    {
        await using var node = await StartAsync();
        var request = Request(s_forever);

        await node.Link.StartAsync(request, Ct);
        var ready = await PhaseAsync(node.Link, request.RunId, EnginePhase.Ready);
        var report = await Deadline.UntilAsync(() => ReportAsync(node.Link), report => report.Disk.TotalBytes > 0, what: "the disk to be read");
        await node.Link.StopAsync(new StopRequest { RunId = request.RunId }, Ct);
        var last = await GoneAsync(node.Link, request.RunId);

        (ready.DeploymentUid, ready.LaunchSpec, ready.Runtime, ready.EngineKey.Length).ShouldBe((request.DeploymentUid, request.LaunchSpec, "process", 48));
        (report.NodeId, string.Join(' ', report.Runtimes)).ShouldBe(("node", "process"));
        last.Engines.ShouldBeEmpty();
    }

    [Fact]
    public async Task Asking_again_changes_nothing()
    {
        await using var node = await StartAsync();
        var request = Request(s_forever);

        await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => node.Link.StartAsync(request, Ct)));
        await PhaseAsync(node.Link, request.RunId, EnginePhase.Ready);
        await node.Link.StartAsync(request, Ct);
        var engines = (await ReportAsync(node.Link)).Engines;
        await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => node.Link.StopAsync(new StopRequest { RunId = request.RunId }, Ct)));
        await GoneAsync(node.Link, request.RunId);
        await node.Link.StopAsync(new StopRequest { RunId = request.RunId }, Ct);
        await node.Link.StartAsync(request, Ct);

        engines.Count.ShouldBe(1);
        (await ReportAsync(node.Link)).Engines.ShouldBeEmpty();
    }

    [Fact]
    public async Task Later_lease_is_taken_and_an_earlier_one_passed_over()
    {
        await using var node = await StartAsync();
        var request = Request(new Lease(3, null, null));
        var later = new Lease(4, DateTimeOffset.UtcNow.AddHours(1), 3600);

        await node.Link.StartAsync(request, Ct);
        await PhaseAsync(node.Link, request.RunId, EnginePhase.Ready);
        await node.Link.UpdateAsync(new UpdateRequest { RunId = request.RunId, LaunchSpec = request.LaunchSpec, Lease = later.ToJson() }, Ct);
        await node.Link.UpdateAsync(new UpdateRequest { RunId = request.RunId, LaunchSpec = request.LaunchSpec, Lease = new Lease(2, null, 1).ToJson() }, Ct);
        var engine = (await ReportAsync(node.Link)).Engines.Single();
        await EndAsync(node.Link, request.RunId);

        Lease.FromJson(engine.Lease).ShouldBe(later);
    }

    [Fact]
    public async Task Variables_come_back_and_stand_in_no_report()
    {
        await using var node = await StartAsync();
        var request = Request(s_forever, ("HF_TOKEN", "hf_not-for-reports"), ("EMPTY", ""));

        await node.Link.StartAsync(request, Ct);
        var reply = await node.Link.EnvironmentAsync(new EnvironmentRequest { RunId = request.RunId }, Ct);
        var report = await ReportAsync(node.Link);
        await EndAsync(node.Link, request.RunId);

        reply.Env.ToDictionary().ShouldBe(new Dictionary<string, string> { ["HF_TOKEN"] = "hf_not-for-reports", ["EMPTY"] = "" }, ignoreOrder: true);
        report.ToString().ShouldNotContain("hf_not-for-reports");
    }

    [Fact]
    public async Task Runs_that_there_are_not_are_no_error()
    {
        await using var node = await StartAsync();
        var (run, uid) = (Guid.NewGuid().ToString("N"), Guid.NewGuid().ToString());
        var spec = Request(s_forever).LaunchSpec;

        await node.Link.StopAsync(new StopRequest { RunId = run }, Ct);
        await node.Link.UpdateAsync(new UpdateRequest { RunId = run, LaunchSpec = spec, Lease = s_forever.ToJson() }, Ct);
        (await node.Link.EnvironmentAsync(new EnvironmentRequest { RunId = run }, Ct)).Env.ShouldBeEmpty();
        (await node.Link.LogsAsync(new LogsRequest { DeploymentUid = uid, RunId = run, Tail = 10 }, Ct)).Lines.ShouldBeEmpty();
        (await LogFileAsync(node.Link, uid, run)).ShouldBe("");
        (await LogFileAsync(node.Link, "../../../etc", "passwd")).ShouldBe("");
    }

    [Fact]
    public async Task What_makes_no_sense_is_an_ArgumentException()
    {
        await using var node = await StartAsync();
        var (noSpec, noBackend, noRuntime) = (Request(s_forever), Request(s_forever), Request(s_forever));
        noSpec.LaunchSpec = "{";
        noBackend.LaunchSpec = noBackend.LaunchSpec.Replace("simulator", "../nothing", StringComparison.Ordinal);
        noRuntime.LaunchSpec = noRuntime.LaunchSpec.Replace("\"process\"", "\"magic\"", StringComparison.Ordinal);

        (await Should.ThrowAsync<ArgumentException>(() => node.Link.StartAsync(noSpec, Ct))).Message.ShouldContain("unknown version");
        (await Should.ThrowAsync<ArgumentException>(() => node.Link.StartAsync(noBackend, Ct))).Message.ShouldContain("'../nothing'");
        (await Should.ThrowAsync<ArgumentException>(() => node.Link.StartAsync(noRuntime, Ct))).Message.ShouldContain("'magic'");
        await Should.ThrowAsync<ArgumentException>(() => node.Link.UpdateAsync(new UpdateRequest { RunId = noSpec.RunId, LaunchSpec = "{}", Lease = "" }, Ct));
        (await ReportAsync(node.Link)).Engines.ShouldBeEmpty();
    }

    [Fact]
    public async Task Log_is_read_from_its_end_and_whole()
    {
        await using var node = await StartAsync();
        var request = Request(s_forever);
        await node.Link.StartAsync(request, Ct);
        await PhaseAsync(node.Link, request.RunId, EnginePhase.Ready);

        // lines are read beside the answers of the engine: those from before it was ready may come after that
        var tail = await Deadline.UntilAsync(
            () => node.Link.LogsAsync(new LogsRequest { DeploymentUid = request.DeploymentUid, RunId = request.RunId, Tail = 3 }, Ct), logs => logs.Lines.Count >= 3, what: "the log to have lines");
        var whole = await LogFileAsync(node.Link, request.DeploymentUid, request.RunId);
        await EndAsync(node.Link, request.RunId);
        var afterwards = await LogFileAsync(node.Link, request.DeploymentUid, request.RunId);

        tail.Lines.Count.ShouldBe(3);
        whole.ShouldContain(tail.Lines[0]);
        afterwards.ShouldStartWith(whole);
    }

    [Fact]
    public async Task Report_has_the_figures_of_the_machine()
    {
        await using var node = await StartAsync();

        var report = await Deadline.UntilAsync(() => ReportAsync(node.Link), report => report.Cpu is { HasPercent: true } && report.Disk.HasHfCacheBytes);

        report.Cpu.Count.ShouldBeGreaterThanOrEqualTo(Environment.ProcessorCount); // of the machine, not of this process
        report.Cpu.Percent.ShouldBeInRange(0, 100);
        report.Memory.TotalBytes.ShouldBeGreaterThan(report.Memory.AvailableBytes);
        report.Memory.AvailableBytes.ShouldBeGreaterThan(0);
        report.Disk.FreeBytes.ShouldBeInRange(0, report.Disk.TotalBytes);
    }

    [Fact]
    public async Task Port_is_free_until_something_listens_on_any_address()
    {
        await using var node = await StartAsync();
        foreach (var address in (IPAddress[])[IPAddress.Loopback, IPAddress.Any])
        {
            var port = TestPorts.Free(); // none that others are given when it is free again
            using var listener = new TcpListener(address, port);
            listener.Start();

            var held = await node.Link.CheckPortAsync(new PortRequest { Port = port }, Ct);
            listener.Stop();
            var free = await node.Link.CheckPortAsync(new PortRequest { Port = port }, Ct);

            (held.Available, free.Available, free.Reason).ShouldBe((false, true, ""));
            held.Reason.ShouldContain("in use");
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(65536)]
    public async Task Port_that_there_is_not_is_an_ArgumentException(int port)
    {
        await using var node = await StartAsync();

        (await Should.ThrowAsync<ArgumentException>(() => node.Link.CheckPortAsync(new PortRequest { Port = port }, Ct))).Message.ShouldContain($"no port {port}");
    }

    [Fact]
    public async Task Watching_begins_with_a_whole_report_and_what_it_tells_makes_the_report_of_now()
    {
        await using var node = await StartAsync();
        var request = Request(s_forever);
        using var watching = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        await using var updates = node.Link.WatchAsync(new WatchRequest { IntervalSeconds = 1 }, watching.Token).GetAsyncEnumerator(watching.Token);
        var first = await NextAsync(updates);
        var (parts, sequence) = (new ReportParts(first.Report), 1);
        async Task<NodeReport> UntilAsync(Func<NodeReport, bool> holds)
        {
            while (!holds(parts.Whole()))
            {
                var update = await NextAsync(updates);
                update.Sequence.ShouldBe(++sequence);
                if (update.Report is { } whole)
                    parts = new ReportParts(whole);
                else
                    parts.Apply(update);
            }
            return parts.Whole();
        }

        await node.Link.StartAsync(request, Ct);
        var ready = await UntilAsync(report => report.Engines.Any(engine => engine.Phase == EnginePhase.Ready));
        var asked = await ReportAsync(node.Link);
        await node.Link.StopAsync(new StopRequest { RunId = request.RunId }, Ct);
        var gone = await UntilAsync(report => report.Engines.Count == 0);
        await watching.CancelAsync();

        (first.Sequence, first.Report.NodeId, first.Report.Engines.Count).ShouldBe((1, "node", 0));
        var engine = ready.Engines.ShouldHaveSingleItem();
        (engine.RunId, engine.LaunchSpec, engine.EngineUrl, engine.EngineKey).ShouldBe((request.RunId, request.LaunchSpec, asked.Engines[0].EngineUrl, asked.Engines[0].EngineKey));
        (gone.NodeId, gone.Hostname, string.Join(' ', gone.Runtimes)).ShouldBe((asked.NodeId, asked.Hostname, "process"));
        await Should.ThrowAsync<OperationCanceledException>(async () =>
        {
            while (await updates.MoveNextAsync())
            {
                // what was on its way
            }
        });
    }

    [Fact]
    public async Task Watching_tells_at_once_what_happens_and_in_its_interval_that_the_node_is_there()
    {
        await using var node = await StartAsync();
        await using var seldom = node.Link.WatchAsync(new WatchRequest { IntervalSeconds = 300 }, Ct).GetAsyncEnumerator(Ct);
        await using var often = node.Link.WatchAsync(new WatchRequest { IntervalSeconds = 1 }, Ct).GetAsyncEnumerator(Ct);
        (await NextAsync(seldom)).Report.ShouldNotBeNull();
        for (var i = 0; i < 3; i++)
            (await NextAsync(often)).Sequence.ShouldBe(i + 1);

        var request = Request(s_forever);
        await node.Link.StartAsync(request, Ct);
        while ((await NextAsync(seldom)) is var update && !(update.Report?.Engines ?? update.Engines).Any(engine => engine.RunId == request.RunId))
        {
            // what else came up at the beginning
        }
        await EndAsync(node.Link, request.RunId);
    }

    [Fact]
    public async Task Usage_is_handed_out_until_it_is_booked()
    {
        await using var node = await StartAsync();
        (await ReportAsync(node.Link)).UsageWaiting.ShouldBeFalse();
        (await node.Link.UsageAsync(new UsageRequest(), Ct)).Batch.ShouldBeNull();
        node.Usage.Add("uid", new DirectCaller(7, ulong.MaxValue), new UsageCount(1, 1, 0, 10, 5));

        (await ReportAsync(node.Link)).UsageWaiting.ShouldBeTrue();
        var first = await node.Link.UsageAsync(new UsageRequest(), Ct);
        node.Usage.Add("uid", default, new UsageCount(1, 0, 1, 0, 0));
        var again = await node.Link.UsageAsync(new UsageRequest { Journal = "another", Booked = 5 }, Ct);
        var second = await node.Link.UsageAsync(new UsageRequest { Journal = first.Journal, Booked = 1 }, Ct);
        var last = await node.Link.UsageAsync(new UsageRequest { Journal = first.Journal, Booked = 2 }, Ct);

        var entry = first.Batch.Entries.Single();
        (entry.DeploymentUid, entry.KeyId, entry.KeyMark, entry.Requests, entry.Aborted, entry.Failed, entry.PromptTokens, entry.CompletionTokens).ShouldBe(("uid", 7, ulong.MaxValue, 1, 1, 0, 10, 5));
        (again.Journal, again.Batch, again.More).ShouldBe((first.Journal, first.Batch, true));
        (second.Journal, second.Batch.Sequence, second.Batch.Entries.Single().Failed).ShouldBe((first.Journal, 2, 1));
        last.Batch.ShouldBeNull();
        (await ReportAsync(node.Link)).UsageWaiting.ShouldBeFalse();
        await Should.ThrowAsync<ArgumentException>(() => node.Link.UsageAsync(new UsageRequest { Booked = -1 }, Ct));
    }

    private static async Task<ReportUpdate> NextAsync(IAsyncEnumerator<ReportUpdate> updates)
    {
        (await updates.MoveNextAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(30), Ct)).ShouldBeTrue();
        return updates.Current;
    }

    private async Task<Asked> StartAsync(string? dockerHost = null)
    {
        var surroundings = new TestNode();
        var ports = new ProxyAlone(surroundings);
        var local = await OpenAsync(surroundings, Pulls.Options(), ports.Proxy, dockerHost);
        var asked = await AskedAsync(local);
        asked.Ends.Add(local);
        asked.Ends.Add(ports);
        asked.Usage = ports.Proxy.Usage;
        asked.Ends.Add(new Surroundings(surroundings));
        asked.Data = surroundings.Data;
        return asked;
    }

    /// <summary>Through a client, HTTP/2 and a service.</summary>
    private protected static async Task<Asked> OverTheWireAsync(Action<WebApplication> map)
    {
        var server = await EchoServer.StartAsync(map: map);
        var client = new RpcClient(server.Address, new RpcClientOptions { MaxMessageBytes = NodeMethods.MaxMessageBytes, KeepAlive = TimeSpan.FromSeconds(60) }); // that nothing goes on here for seconds ends no call
        var remote = new RemoteNode(client, run => $"https://node/engines/{run}");
        return new Asked(remote) { Ends = { new Client(remote), server } };
    }

    private sealed class Client(RemoteNode remote) : IAsyncDisposable
    {
        public ValueTask DisposeAsync()
        {
            remote.Dispose();
            return ValueTask.CompletedTask;
        }
    }

    private static async Task EndAsync(INode node, string run)
    {
        await node.StopAsync(new StopRequest { RunId = run }, Ct);
        await GoneAsync(node, run);
    }

    private static async Task<string> LogFileAsync(INode node, string uid, string run)
    {
        var text = new StringBuilder();
        await foreach (var piece in node.LogFileAsync(new LogsRequest { DeploymentUid = uid, RunId = run }, Ct))
            text.Append(piece.Data.ToStringUtf8());
        return text.ToString();
    }

    /// <summary>A node as it is asked, and what ends with it, first to last.</summary>
    private protected sealed record Asked(INode Link) : IAsyncDisposable
    {
        public List<IAsyncDisposable> Ends { get; } = [];

        /// <summary>What its public ports were used for.</summary>
        public DirectJournal Usage { get; set; } = null!;

        /// <summary>The node's data folder.</summary>
        public string Data { get; set; } = "";

        public async ValueTask DisposeAsync()
        {
            foreach (var end in Ends)
                await end.DisposeAsync();
        }
    }

    private sealed class Surroundings(TestNode node) : IAsyncDisposable
    {
        public ValueTask DisposeAsync()
        {
            node.Dispose();
            return ValueTask.CompletedTask;
        }
    }
}

/// <summary>The node itself.</summary>
public sealed class LocalNodeContractTests : NodeContractTests
{
    private protected override Task<Asked> AskedAsync(INode node) => Task.FromResult(new Asked(node));
}

/// <summary>The same node through its client, HTTP/2 and its service.</summary>
public sealed class RemoteNodeContractTests : NodeContractTests
{
    [Fact]
    public void Methods_are_those_of_the_protocol()
    {
        var service = NodeReflection.Descriptor.Services.Single();

        var known = typeof(NodeMethods).GetProperties()
            .Select(property => (Kinds: property.PropertyType.GetGenericArguments(), Path: (string)property.PropertyType.GetProperty("Path")!.GetValue(property.GetValue(null))!))
            .Select(method => $"{method.Path} {method.Kinds[0].Name} {method.Kinds[1].Name}");

        known.ShouldBe(service.Methods.Select(method => $"/{service.FullName}/{method.Name} {method.InputType.ClrType.Name} {method.OutputType.ClrType.Name}"), ignoreOrder: true);
    }

    private protected override Task<Asked> AskedAsync(INode node) => OverTheWireAsync(app => app.MapNode(node));
}

/// <summary>The same node behind an agent of the version before, which can only be asked for whole reports.</summary>
public sealed class OldAgentContractTests : NodeContractTests
{
    private protected override Task<Asked> AskedAsync(INode node) => OverTheWireAsync(app =>
    {
        app.Use((context, next) =>
        {
            if (context.Request.Path != "/modelhost.node.v1.Node/Watch")
                return next(context);
            (context.Response.ContentType, context.Response.Headers["grpc-status"]) = ("application/grpc", $"{(int)RpcCode.Unimplemented}");
            return Task.CompletedTask;
        });
        app.MapNode(node);
    });
}
