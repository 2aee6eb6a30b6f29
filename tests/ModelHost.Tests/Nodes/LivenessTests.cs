using System.Runtime.CompilerServices;
using System.Threading.Channels;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Cluster;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Protocol;
using ModelHost.Reconcile;
using ModelHost.TestKit;

namespace ModelHost.Tests.Nodes;

/// <summary>When a node is degraded and critical, by a clock that is moved by hand.</summary>
public sealed class LivenessTests
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(10);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(3, 10, "online")]
    [InlineData(3, 13.9, "online")]
    [InlineData(3, 14.1, "degraded")] // within 15 s
    [InlineData(3, 33.9, "degraded")]
    [InlineData(3, 34.1, "critical")]
    [InlineData(1, 14.1, "critical")]
    [InlineData(20, 203.9, "degraded")]
    [InlineData(20, 204.1, "critical")]
    public void Heartbeats_that_do_not_come_make_a_node_degraded_and_then_critical(int threshold, double seconds, string status)
    {
        var clock = new ManualTimeProvider();
        var handle = Handle(new PushedNode(), new RuntimeSettings { NodeFailureThreshold = threshold });
        handle.Heard(Report(), clock.GetUtcNow());
        handle.Beat(clock.GetUtcNow(), Interval);

        clock.Advance(TimeSpan.FromSeconds(seconds));

        NodeService.Status(handle, clock.GetUtcNow()).ShouldBe(status);
        handle.Beat(clock.GetUtcNow(), Interval);
        NodeService.Status(handle, clock.GetUtcNow()).ShouldBe("online", "one beat is enough");
        handle.Report.ShouldNotBeNull("what it said stays");
    }

    [Fact]
    public void Heartbeat_that_was_due_later_is_missed_later()
    {
        var clock = new ManualTimeProvider();
        var handle = Handle(new PushedNode());
        handle.Heard(Report(), clock.GetUtcNow());
        handle.Beat(clock.GetUtcNow(), Heartbeats.Next(Interval, nodes: 1000, random: 0));

        clock.Advance(TimeSpan.FromSeconds(53));
        NodeService.Status(handle, clock.GetUtcNow()).ShouldBe("online", "a fleet of a thousand was told to beat every 50 s");
        clock.Advance(TimeSpan.FromSeconds(2));
        NodeService.Status(handle, clock.GetUtcNow()).ShouldBe("degraded");
    }

    [Fact]
    public async Task Stream_that_is_open_and_silent_is_a_node_that_does_not_answer_until_it_does()
    {
        var clock = new ManualTimeProvider();
        var node = new PushedNode();
        var handle = Handle(node);
        await using var watch = new Watching(handle, clock);
        await node.TellAsync(1, new ReportUpdate { Sequence = 1, Report = Report() });
        await Deadline.UntilAsync(() => handle.LastReport is not null);
        clock.Advance(TimeSpan.FromSeconds(9.5));
        NodeService.Status(handle, clock.GetUtcNow()).ShouldBe("online");

        clock.Advance(TimeSpan.FromSeconds(1));
        await Deadline.UntilAsync(() => handle.Failures == 1);
        var degraded = NodeService.Status(handle, clock.GetUtcNow());
        await MoveUntilAsync(clock, () => handle.IsCritical(clock.GetUtcNow()) && handle.IsUnreachable);
        var (said, last) = (handle.Report, handle.LastReport);
        // the stream that is open now may be given up already
        foreach (var stream in (int[])[node.Streams, node.Streams + 1])
            await node.TellAsync(stream, new ReportUpdate { Sequence = 1, Report = Report() });
        await MoveUntilAsync(clock, () => NodeService.Status(handle, clock.GetUtcNow()) == "online");

        degraded.ShouldBe("degraded");
        (said, last).ShouldBe((null, Report()));
        handle.Reason.ShouldBeNull();
    }

    [Fact]
    public async Task Gap_between_updates_leads_to_a_new_whole_report()
    {
        var node = new PushedNode();
        var handle = Handle(node);
        await using var watch = new Watching(handle, TimeProvider.System);
        await node.TellAsync(1, new ReportUpdate { Sequence = 1, Report = Report() });
        await node.TellAsync(1, new ReportUpdate { Sequence = 2, Machine = new MachineLoad { Cpu = new Cpu { Count = 2 } } });
        await Deadline.UntilAsync(() => handle.LastReport?.Cpu?.Count == 2);

        await node.TellAsync(1, new ReportUpdate { Sequence = 4, Machine = new MachineLoad { Cpu = new Cpu { Count = 4 } } });
        await node.TellAsync(2, new ReportUpdate { Sequence = 1, Report = new NodeReport { NodeId = "n", Hostname = "anew", Runtimes = { "docker" } } });

        await Deadline.UntilAsync(() => handle.LastReport?.Hostname == "anew");
        (handle.LastReport!.Cpu, handle.Failures).ShouldBe((null, 0));
    }

    [Theory]
    [InlineData("changes before a whole report")]
    [InlineData("nothing")]
    [InlineData("more than can be kept")]
    public async Task Node_whose_updates_make_no_sense_is_one_that_does_not_answer(string what)
    {
        var node = new PushedNode();
        var handle = Handle(node);
        await using var watch = new Watching(handle, new ManualTimeProvider());

        for (var stream = 1; handle.Failures == 0 && stream < 10; stream++)
        {
            switch (what)
            {
                case "changes before a whole report":
                    await node.TellAsync(stream, new ReportUpdate { Sequence = 1, Head = Report() });
                    break;
                case "nothing":
                    await node.EndAsync(stream);
                    break;
                default:
                    await node.TellAsync(stream, new ReportUpdate { Sequence = 1, Report = Report(new string('x', 65 << 20)) });
                    break;
            }
            await Deadline.UntilAsync(() => handle.Failures > 0 || node.Streams > stream);
        }

        handle.Failures.ShouldBe(1);
        handle.Reason.ShouldNotBeNullOrEmpty();
        handle.LastReport.ShouldBeNull();
    }

    [Fact]
    public async Task Only_what_is_more_than_figures_asks_for_a_pass()
    {
        var node = new PushedNode();
        var handle = Handle(node);
        await using var watch = new Watching(handle, TimeProvider.System);
        async Task<bool> WakesAsync(ReportUpdate update)
        {
            await node.TellAsync(1, update);
            await Deadline.UntilAsync(() => node.Taken == update.Sequence);
            using var now = new CancellationTokenSource();
            var woken = handle.WokenAsync(now.Token);
            await now.CancelAsync();
            await ((Task)woken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            return woken.IsCompletedSuccessfully;
        }

        (await WakesAsync(new ReportUpdate { Sequence = 1, Report = Report() })).ShouldBeTrue();
        (await WakesAsync(new ReportUpdate { Sequence = 2 })).ShouldBeFalse();
        (await WakesAsync(new ReportUpdate { Sequence = 3, Machine = new MachineLoad { Cpu = new Cpu() } })).ShouldBeFalse();
        (await WakesAsync(new ReportUpdate { Sequence = 4, Engines = { new Engine { RunId = "a" } } })).ShouldBeTrue();
        (await WakesAsync(new ReportUpdate { Sequence = 5, EngineLoads = { new EngineLoad { RunId = "a" } } })).ShouldBeFalse();
        (await WakesAsync(new ReportUpdate { Sequence = 6, RemovedEngines = { "a" } })).ShouldBeTrue();
    }

    [Fact]
    public async Task Heartbeat_of_a_node_that_did_not_answer_has_it_asked_again_at_once()
    {
        var clock = new ManualTimeProvider();
        var node = new PushedNode { IsRefusing = true };
        var settings = new RuntimeSettings { NodesSyncIntervalSeconds = 300, DeploymentsSyncIntervalSeconds = 300 };
        var handle = Handle(node, settings);
        await using var watch = new Watching(handle, clock, settings);
        await MoveUntilAsync(clock, () => node.Streams > 8, stepSeconds: 5); // it is asked every 300 s now
        node.IsRefusing = false;
        var next = node.Streams + 1;

        handle.Beat(clock.GetUtcNow(), Interval);
        await node.TellAsync(next, new ReportUpdate { Sequence = 1, Report = Report() });

        await Deadline.UntilAsync(() => NodeService.Status(handle, clock.GetUtcNow()) == "online");
    }

    private static NodeReport Report(string hostname = "n") => new() { NodeId = "n", Hostname = hostname, Runtimes = { "docker" } };

    private static NodeHandle Handle(INode node, RuntimeSettings? settings = null) => new(1, node, Settings(settings), "n");

    private static LiveSettings Settings(RuntimeSettings? settings) =>
        new(null!, null!, settings ?? new RuntimeSettings(), new HashSet<string>(), NullLogger<LiveSettings>.Instance);

    /// <summary>Moves the clock in steps until the condition holds.</summary>
    private static Task<bool> MoveUntilAsync(ManualTimeProvider clock, Func<bool> until, double stepSeconds = 0.25) => Deadline.UntilAsync(async () =>
    {
        clock.Advance(TimeSpan.FromSeconds(stepSeconds));
        // what was waited for goes on on other threads
        for (var i = 0; i < 20 && !until(); i++)
            await Task.Delay(1, Ct);
        return until();
    }, holds => holds, seconds: 120);

    /// <summary>The watch over a node while it lasts.</summary>
    private sealed class Watching : IAsyncDisposable
    {
        private readonly CancellationTokenSource _ended = new();
        private readonly Task _task;

        public Watching(NodeHandle handle, TimeProvider time, RuntimeSettings? settings = null) =>
            _task = new NodeWatch(handle, Settings(settings), time, new Random(1), NullLogger.Instance).RunAsync(_ended.Token);

        public async ValueTask DisposeAsync()
        {
            await _ended.CancelAsync();
            await _task;
            _ended.Dispose();
        }
    }

    /// <summary>A node that tells what a test wants it to.</summary>
    private sealed class PushedNode : NodeStandIn
    {
        private readonly Lock _lock = new();
        private readonly Dictionary<int, Channel<ReportUpdate>> _streams = [];
        private int _opened;

        /// <summary>Streams that were begun.</summary>
        public int Streams => Volatile.Read(ref _opened);

        /// <summary>Sequence of the update after which more was wanted.</summary>
        public long Taken { get; private set; }

        public bool IsRefusing { get; set; }

        public ValueTask TellAsync(int stream, ReportUpdate update) => Stream(stream).Writer.WriteAsync(update, Ct);

        public ValueTask EndAsync(int stream)
        {
            Stream(stream).Writer.TryComplete();
            return ValueTask.CompletedTask;
        }

        public override async IAsyncEnumerable<ReportUpdate> WatchAsync(WatchRequest request, [EnumeratorCancellation] CancellationToken cancellationToken)
        {
            // whoever sees the stream counted may let the next one be taken
            var isRefused = IsRefusing;
            var stream = Stream(Interlocked.Increment(ref _opened));
            if (isRefused)
                throw new IOException("refused");
            await foreach (var update in stream.Reader.ReadAllAsync(cancellationToken))
            {
                yield return update;
                Taken = update.Sequence;
            }
        }

        private Channel<ReportUpdate> Stream(int number)
        {
            lock (_lock)
                return _streams.TryGetValue(number, out var stream) ? stream : _streams[number] = Channel.CreateUnbounded<ReportUpdate>();
        }
    }
}
