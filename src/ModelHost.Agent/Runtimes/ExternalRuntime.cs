using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Agent.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;

namespace ModelHost.Agent.Runtimes;

/// <summary>
/// "Starts" backends that somebody else runs: a run begins when their address is taken and ends when it is let go, or when nothing listens there any more. Only
/// addresses of the node's configuration (<see cref="NodeOptions.Backends"/>).
/// </summary>
internal sealed class ExternalRuntime(NodeIdentity identity, InstalledBackends backends, TimeProvider time) : IEngineRuntime
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private static readonly TimeSpan Poll = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);
    // one that is started anew is not gone
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(15);

    private readonly string _folder = Path.Combine(identity.DataFolder, "external");

    public string Name => "external";

    public Task<IReadOnlyList<EngineInstance>> ListAsync(IReadOnlySet<string> knownRuns, CancellationToken cancellationToken) =>
        Task.FromResult<IReadOnlyList<EngineInstance>>(
            [.. (Directory.Exists(_folder) ? Directory.EnumerateFiles(_folder, "*.json") : []).Select(Read).OfType<ExternalRun>()
                .Where(run => !knownRuns.Contains(run.RunId)).Select(Instance)]);

    public Task<EngineInstance> LaunchAsync(EngineLaunch launch, Action<LaunchProgress> progress, CancellationToken cancellationToken)
    {
        var run = new ExternalRun { DeploymentUid = launch.DeploymentUid, RunId = launch.RunId, Spec = launch.Spec.ToJson() };
        var instance = Instance(run);
        if (launch.Install is not { Runtime: "external" })
            throw new RuntimeException($"the node's configuration has no address for '{launch.Recipe.Name}' (Node:Backends)");
        progress(new LaunchProgress("connecting", Line: $"[modelhost] using the backend at {instance.Url.Authority}"));
        Directory.CreateDirectory(_folder, OwnerOnly | UnixFileMode.UserExecute);
        var path = PathOf(launch.RunId);
        using (var file = new FileStream(path + ".new", new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = OwnerOnly }))
        {
            JsonSerializer.Serialize(file, run, ExternalRunJson.Default.ExternalRun);
            file.Flush(flushToDisk: true);
        }
        File.Move(path + ".new", path, overwrite: true);
        return Task.FromResult(instance);
    }

    public async Task<EngineExit?> WaitAsync(EngineInstance instance, CancellationToken cancellationToken)
    {
        var heard = time.GetTimestamp();
        while (true)
        {
            if (await ListensAsync(instance.Url, cancellationToken))
                heard = time.GetTimestamp();
            else if (time.GetElapsedTime(heard) > Patience)
            {
                return new EngineExit(null)
                {
                    Failure = new EngineFailure("backend_unreachable", $"Nothing has listened at {instance.Url.Authority} for {Patience.TotalSeconds:0} s."),
                };
            }
            await Task.Delay(Poll, time, cancellationToken);
        }
    }

    public async IAsyncEnumerable<OutputLine> FollowAsync(
        EngineInstance instance, string? position, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        // what it says, whoever started it knows
        await Task.CompletedTask;
        yield break;
    }

    public Task RemoveAsync(EngineInstance instance, TimeSpan grace, CancellationToken cancellationToken)
    {
        if (Directory.Exists(_folder))
            File.Delete(PathOf(instance.RunId));
        return Task.CompletedTask;
    }

    public bool Owns(EngineInstance instance, ProcessOrigin process) => false;

    private static async Task<bool> ListensAsync(Uri url, CancellationToken cancellationToken)
    {
        using var late = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        late.CancelAfter(ConnectTimeout);
        using var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
        try
        {
            await socket.ConnectAsync(url.IdnHost, url.Port, late.Token);
            return true;
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException)
        {
            cancellationToken.ThrowIfCancellationRequested();
            return false;
        }
    }

    /// <summary>The run with its address of now. Without one in the configuration it is one where nothing listens, and the run ends.</summary>
    private EngineInstance Instance(ExternalRun run)
    {
        var settings = backends.Find(LaunchSpec.FromJson(run.Spec)?.Backend ?? "")?.Settings;
        var token = settings?.Token ?? "";
        return new EngineInstance(run.RunId, run.DeploymentUid, run.RunId, run.Spec, 0, token, "", "", "", token.Length > 0 ? [token] : [])
        {
            Url = settings is { Address.Length: > 0, Url: { } url } ? url : new Uri("http://127.0.0.1:9"),
        };
    }

    private static ExternalRun? Read(string path)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllBytes(path), ExternalRunJson.Default.ExternalRun);
        }
        catch (Exception e) when (e is JsonException or FileNotFoundException)
        {
            return null;
        }
    }

    private string PathOf(string runId) =>
        Guid.TryParse(runId, out _) ? Path.Combine(_folder, runId + ".json") : throw new ArgumentException("a run id is a GUID", nameof(runId));
}

/// <summary>What is kept of a run of a backend that somebody else started. No secrets.</summary>
internal sealed record ExternalRun
{
    public required string DeploymentUid { get; init; }
    public required string RunId { get; init; }
    public required string Spec { get; init; }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(ExternalRun))]
internal sealed partial class ExternalRunJson : JsonSerializerContext;
