using System.Net.Sockets;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Agent;
using ModelHost.Agent.Engines;
using ModelHost.Agent.Runtimes;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Engines;

/// <summary>The watch over one engine, whatever breaks down around it.</summary>
public sealed class EngineSupervisorTests : IAsyncLifetime
{
    private static readonly Dictionary<string, Func<Exception>> Faults = new()
    {
        ["cancelled"] = () => new TaskCanceledException("nobody cancelled it here"),
        ["io"] = () => new IOException("broken pipe"),
        ["end of stream"] = () => new EndOfStreamException("half a line"),
        ["http"] = () => new HttpRequestException("the response ended prematurely"),
        ["socket"] = () => new SocketException((int)SocketError.ConnectionReset),
        ["disposed"] = () => new ObjectDisposedException("stream"),
        ["json"] = () => new JsonException("half an object"),
        ["timeout"] = () => new TimeoutException("too late"),
        ["silent"] = () => new RuntimeException("it does not answer", silent: true),
        ["bug"] = () => new InvalidOperationException("never to be thrown"),
    };

    private readonly string _folder = Directory.CreateTempSubdirectory("mh-").FullName;
    private readonly EngineProtocols _protocols;
    private readonly ManualTimeProvider _time = new();
    private readonly WebApplication _engine;
    private StandInRuntime _runtime = null!;

    public EngineSupervisorTests()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        _engine = builder.Build();
        _engine.Run(context => context.Response.WriteAsync("vllm:prompt_tokens_total 7\n"));
        _protocols = new EngineProtocols(new NodeOptions(), _folder, _time);
    }

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public static TheoryData<string, string> Breaks => new(
        from call in (string[])["wait", "follow", "line"]
        from fault in Faults.Keys
        select (call, fault));

    public async ValueTask InitializeAsync()
    {
        await _engine.StartAsync(Ct);
        _runtime = new StandInRuntime(new Uri(_engine.Urls.First()));
    }

    public async ValueTask DisposeAsync()
    {
        await _engine.DisposeAsync();
        _protocols.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Theory]
    [MemberData(nameof(Breaks))]
    public async Task Engine_runs_on_and_its_end_is_seen_whatever_broke_while_it_was_watched(string call, string fault)
    {
        _runtime.Break(call, Faults[fault](), Faults[fault]());
        await using var supervisor = Start();
        await PhaseAsync(supervisor, EnginePhase.Ready);

        for (var line = 0; line < 4; line++)
            _runtime.Write($"line {line}");
        await TimePassesUntilAsync(() => _runtime.IsBroken(call), $"the {call} to break twice");
        await TimePassesUntilAsync(() => supervisor.Tail(100).Count(line => line.Contains("] line ", StringComparison.Ordinal)) == 4, "all lines");
        var watched = supervisor.Snapshot();
        _runtime.End(new EngineExit(3));
        await TimePassesUntilAsync(() => supervisor.Snapshot().Phase == EnginePhase.Failed, "its end to be seen");
        var ended = supervisor.Snapshot();

        (watched.Phase, watched.Failure).ShouldBe((EnginePhase.Ready, ""));
        (ended.ExitCode, ended.FailureCode).ShouldBe((3, "engine_exited"));
        _runtime.Removed.ShouldBeEmpty();
        await StopAsync(supervisor);
        _runtime.Removed.ShouldHaveSingleItem();
    }

    [Fact]
    public async Task What_goes_on_breaking_is_tried_again_at_ever_longer_intervals_and_ends_nothing()
    {
        _runtime.Break("wait", [.. Enumerable.Range(0, 100).Select(_ => new InvalidOperationException("never to be thrown"))]);
        await using var supervisor = Start();
        await PhaseAsync(supervisor, EnginePhase.Ready);

        var tries = new List<int>();
        for (var minute = 0; minute < 3; minute++)
        {
            var before = _runtime.Faults["wait"].Count;
            for (var second = 0; second < 60; second++)
            {
                await Deadline.UntilAsync(() => _time.Waiting > 0);
                _time.Advance(TimeSpan.FromSeconds(1));
                await Task.Yield();
            }
            tries.Add(before - _runtime.Faults["wait"].Count);
        }

        tries.Sum().ShouldBeLessThan(20);
        supervisor.Snapshot().Phase.ShouldBe(EnginePhase.Ready);
        _runtime.Removed.ShouldBeEmpty();
        await StopAsync(supervisor);
    }

    [Theory]
    [InlineData("io", "launch_failed")]
    [InlineData("bug", "internal")]
    public async Task Start_that_breaks_is_shown_and_waits_to_be_told(string fault, string code)
    {
        _runtime.Break("launch", Faults[fault]());
        await using var supervisor = Start();

        var failed = await PhaseAsync(supervisor, EnginePhase.Failed);
        await StopAsync(supervisor);

        failed.FailureCode.ShouldBe(code);
        supervisor.IsGone.ShouldBeTrue();
    }

    [Fact]
    public async Task Disk_that_takes_no_key_costs_no_engine()
    {
        await File.WriteAllTextAsync(Path.Combine(_folder, "keys"), "no folder", Ct);
        await using var supervisor = Start();

        (await PhaseAsync(supervisor, EnginePhase.Ready)).Failure.ShouldBe("");

        _runtime.Removed.ShouldBeEmpty();
        await StopAsync(supervisor);
    }

    private EngineSupervisor Start()
    {
        var context = new SupervisorContext(
            new NodeOptions(), (uid, run) => Path.Combine(_folder, "logs", uid, run + ".log"), _protocols, new RunRecords(_folder), _time, NullLogger.Instance, () => { });
        var spec = new LaunchSpec { Backend = "vllm", Runtime = "process", ModelName = "org/model", Owner = "tests", GpuMemoryFraction = 0.4 };
        return EngineSupervisor.Start(context, _runtime, new EngineLaunch(
            Guid.NewGuid().ToString(), Guid.NewGuid().ToString("N"), spec, BackendCatalogue.BuiltIn["vllm"], new Dictionary<string, string>(), "", 0, "key", new Lease(0, null, null)));
    }

    private Task StopAsync(EngineSupervisor supervisor)
    {
        supervisor.Stop();
        return TimePassesUntilAsync(() => supervisor.Completion.IsCompleted, "its end");
    }

    private static async Task<Engine> PhaseAsync(EngineSupervisor supervisor, EnginePhase phase)
    {
        await Deadline.UntilAsync(() => supervisor.Snapshot().Phase == phase, what: $"the engine to be {phase}");
        return supervisor.Snapshot();
    }

    private Task TimePassesUntilAsync(Func<bool> holds, string what) => Deadline.UntilAsync(() =>
    {
        _time.Advance(TimeSpan.FromSeconds(1));
        return holds();
    }, what: what);
}
