using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Threading.Channels;
using ModelHost.Agent.Runtimes;

namespace ModelHost.Tests.Engines;

/// <summary>A runtime whose one engine runs until a test ends it, and that breaks down when it is told to.</summary>
internal sealed class StandInRuntime(Uri engine) : IEngineRuntime
{
    private readonly TaskCompletionSource<EngineExit?> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Channel<string> _lines = Channel.CreateUnbounded<string>();
    private int _read;

    public string Name => "process";

    /// <summary>What its calls throw, in order, before they do what they are asked; by name of the call.</summary>
    public ConcurrentDictionary<string, ConcurrentQueue<Exception>> Faults { get; } = new();

    /// <summary>Engines that it was asked to end.</summary>
    public ConcurrentQueue<string> Removed { get; } = [];

    public EngineInstance Instance(string deploymentUid, string runId, string spec) =>
        new(runId, deploymentUid, runId, spec, 0, "key", "", "", "", []) { Url = engine };

    /// <summary>Lets a call break down.</summary>
    public void Break(string call, params Exception[] faults)
    {
        foreach (var fault in faults)
            Faults.GetOrAdd(call, _ => []).Enqueue(fault);
    }

    /// <summary>Whether a call has broken down as often as it was told to.</summary>
    public bool IsBroken(string call) => Faults[call].IsEmpty;

    /// <summary>Has the engine write a line.</summary>
    public void Write(string line) => _lines.Writer.TryWrite(line);

    /// <summary>Ends the engine.</summary>
    public void End(EngineExit exit)
    {
        _lines.Writer.TryComplete();
        _ended.TrySetResult(exit);
    }

    public Task<IReadOnlyList<EngineInstance>> ListAsync(IReadOnlySet<string> knownRuns, CancellationToken cancellationToken) =>
        Task.FromResult<IReadOnlyList<EngineInstance>>([]);

    public Task<EngineInstance> LaunchAsync(EngineLaunch launch, Action<LaunchProgress> progress, CancellationToken cancellationToken)
    {
        Fail("launch");
        return Task.FromResult(Instance(launch.DeploymentUid, launch.RunId, launch.Spec.ToJson()));
    }

    public async Task<EngineExit?> WaitAsync(EngineInstance instance, CancellationToken cancellationToken)
    {
        Fail("wait");
        return await _ended.Task.WaitAsync(cancellationToken);
    }

    public async IAsyncEnumerable<OutputLine> FollowAsync(EngineInstance instance, string? position, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        Fail("follow");
        await foreach (var line in _lines.Reader.ReadAllAsync(cancellationToken))
        {
            yield return new OutputLine(line, $"{++_read}", null);
            Fail("line");
        }
    }

    public Task RemoveAsync(EngineInstance instance, TimeSpan grace, CancellationToken cancellationToken)
    {
        Fail("remove");
        Removed.Enqueue(instance.RunId);
        return Task.CompletedTask;
    }

    public bool Owns(EngineInstance instance, ProcessOrigin process) => false;

    private void Fail(string call)
    {
        if (Faults.TryGetValue(call, out var faults) && faults.TryDequeue(out var fault))
            throw fault;
    }
}
