using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using ModelHost.Agent.Engines;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;

namespace ModelHost.Agent.Runtimes;

/// <summary>Runs engines as processes of this machine that outlive the host. Only commands of recipes are started, never a shell.</summary>
internal sealed class ProcessRuntime(NodeIdentity identity, NodeOptions options, string cacheFolder, TimeProvider time) : IEngineRuntime
{
    private const int MaxLine = 16 * 1024;
    private const long MaxOutput = 32 * 1024 * 1024;
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(100);
    private static readonly string[] Inherited = ["PATH", "HOME", "LANG", "TMPDIR", "DOTNET_ROOT", "DOTNET_CLI_TELEMETRY_OPTOUT", "DOTNET_NOLOGO"];

    private readonly string _folder = Path.Combine(identity.DataFolder, "engines");
    // of engines that this process started: only a parent learns the exit code
    private readonly Dictionary<string, Process> _children = [];

    public string Name => "process";

    public Task<IReadOnlyList<EngineInstance>> ListAsync(IReadOnlySet<string> knownRuns, CancellationToken cancellationToken)
    {
        if (!Directory.Exists(_folder))
            return Task.FromResult<IReadOnlyList<EngineInstance>>([]);
        var instances = new List<EngineInstance>();
        foreach (var path in Directory.EnumerateFiles(_folder, "*.json"))
        {
            // without a process it is being started right now, or was when the host was killed: the start is asked for again
            if (ProcessSidecar.Read(path) is { Pid: not null } sidecar && !knownRuns.Contains(sidecar.RunId))
                instances.Add(Found(sidecar));
        }
        return Task.FromResult<IReadOnlyList<EngineInstance>>(instances);
    }

    public async Task<EngineInstance> LaunchAsync(EngineLaunch launch, Action<LaunchProgress> progress, CancellationToken cancellationToken)
    {
        new ModelFolders(options, identity).Resolve(launch.Spec);
        progress(new LaunchProgress("starting process"));
        Directory.CreateDirectory(_folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        var path = SidecarPath(launch.RunId);
        // begun by a host that was killed, and noted after the engines were looked for
        if (ProcessSidecar.Read(path) is { IsAlive: true, Pid: { } left })
            Libc.SignalGroup(left, Libc.SigKill);
        var sidecar = new ProcessSidecar
        {
            Attempt = Guid.NewGuid().ToString("N"),
            DeploymentUid = launch.DeploymentUid,
            RunId = launch.RunId,
            Spec = launch.Spec.ToJson(),
            EnginePort = launch.EnginePort,
            Command = [.. Program(launch), .. EngineCommandLine.Arguments(launch.Recipe, launch.Spec, launch.EnginePort)],
            OutputFile = Path.Combine(_folder, launch.RunId + ".out"),
        };
        sidecar.Write(path);
        var shim = Self(["{modelhost}", EngineShim.Role, path, sidecar.Attempt]);
        var start = new ProcessStartInfo(shim[0], shim[1..]) { UseShellExecute = false, RedirectStandardInput = true, WorkingDirectory = launch.Install?.Folder ?? "/" };
        foreach (var name in start.Environment.Keys.Except(Inherited).ToArray())
            start.Environment.Remove(name);
        if (launch.Install is not null)
        {
            start.Environment["HF_HOME"] = cacheFolder;
            Directory.CreateDirectory(identity.ModelsFolder);
        }
        foreach (var (name, value) in launch.Env)
            start.Environment[name] = value;
        if (launch.Recipe.GpuVariable.Length > 0 && launch.Spec.GpuIds.Count > 0)
            start.Environment[launch.Recipe.GpuVariable] = string.Join(',', launch.Spec.GpuIds);
        if (launch.Recipe.KeyVariable.Length > 0)
            start.Environment[launch.Recipe.KeyVariable] = launch.EngineKey;
        Process process;
        try
        {
            process = Process.Start(start)!;
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            Delete(launch.RunId);
            throw new RuntimeException($"{shim[0]} could not be started: {e.Message}", e);
        }
        process.StandardInput.Close();
        lock (_children)
            _children[launch.RunId] = process;
        while (ProcessSidecar.Read(path) is not { Pid: not null } && !process.HasExited)
        {
            try
            {
                await Task.Delay(Poll, time, cancellationToken);
            }
            catch (OperationCanceledException)
            {
                process.Kill();
                await process.WaitForExitAsync(CancellationToken.None);
                Forget(launch.RunId);
                throw;
            }
        }
        return Instance(sidecar, launch.EngineKey, []);
    }

    public async Task<EngineExit?> WaitAsync(EngineInstance instance, CancellationToken cancellationToken)
    {
        Process? child;
        lock (_children)
            _children.TryGetValue(instance.RunId, out child);
        if (child is not null)
        {
            await child.WaitForExitAsync(cancellationToken);
            return new EngineExit(child.ExitCode);
        }
        while (ProcessSidecar.Read(SidecarPath(instance.RunId)) is { } sidecar)
        {
            if (!sidecar.IsAlive)
                return new EngineExit(null);
            await Task.Delay(Poll, time, cancellationToken);
        }
        return null;
    }

    public async IAsyncEnumerable<OutputLine> FollowAsync(
        EngineInstance instance, string? position, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var path = Path.Combine(_folder, instance.RunId + ".out");
        while (!File.Exists(path))
            await Task.Delay(Poll, time, cancellationToken);
        await using var file = new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete);
        var at = long.TryParse(position, NumberStyles.None, CultureInfo.InvariantCulture, out var known) && known <= file.Length ? known : 0;
        file.Seek(at, SeekOrigin.Begin);
        var buffer = new byte[MaxLine];
        var filled = 0;
        while (true)
        {
            var alive = IsAlive(instance.RunId); // asked before reading: what it wrote last is read once more after its end
            var read = await file.ReadAsync(buffer.AsMemory(filled), cancellationToken);
            filled += read;
            var begin = 0;
            while (true)
            {
                var length = buffer.AsSpan(begin, filled - begin).IndexOf((byte)'\n');
                var whole = length >= 0 || (begin == 0 && filled == MaxLine) || (read == 0 && !alive && begin < filled);
                if (!whole)
                    break;
                var end = length >= 0 ? begin + length : filled;
                at += end - begin + (length >= 0 ? 1 : 0);
                yield return new OutputLine(Encoding.UTF8.GetString(buffer, begin, end - begin), at.ToString(CultureInfo.InvariantCulture), null);
                begin = Math.Min(end + 1, filled);
            }
            buffer.AsSpan(begin, filled - begin).CopyTo(buffer);
            filled -= begin;
            if (read > 0)
                continue;
            if (!alive)
                yield break;
            if (at > MaxOutput && filled == 0)
            {
                // all of it stands in the run's log; the engine appends, so it goes on at the new beginning
                file.SetLength(0);
                file.Seek(0, SeekOrigin.Begin);
                at = 0;
            }
            await Task.Delay(Poll, time, cancellationToken);
        }
    }

    public async Task RemoveAsync(EngineInstance instance, TimeSpan grace, CancellationToken cancellationToken)
    {
        if (ProcessSidecar.Read(SidecarPath(instance.RunId)) is { IsAlive: true, Pid: { } pid })
        {
            Libc.SignalGroup(pid, Libc.SigTerm);
            using var deadline = new CancellationTokenSource(grace, time);
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, cancellationToken);
            try
            {
                await WaitAsync(instance, waiting.Token);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                if (IsAlive(instance.RunId))
                    Libc.SignalGroup(pid, Libc.SigKill);
                await WaitAsync(instance, cancellationToken);
            }
        }
        Forget(instance.RunId);
    }

    // an engine leads a session, which all that it starts belong to
    public bool Owns(EngineInstance instance, ProcessOrigin process) =>
        process.Session is { } session && ProcessSidecar.Read(SidecarPath(instance.RunId)) is { IsAlive: true, Pid: { } pid } && pid == session;

    private bool IsAlive(string runId) => ProcessSidecar.Read(SidecarPath(runId)) is { IsAlive: true };

    private void Forget(string runId)
    {
        Delete(runId);
        Process? child;
        lock (_children)
            _children.Remove(runId, out child);
        child?.Dispose();
    }

    private void Delete(string runId)
    {
        File.Delete(SidecarPath(runId));
        File.Delete(Path.Combine(_folder, runId + ".out"));
    }

    private string SidecarPath(string runId) => Path.Combine(_folder, runId + ".json");

    /// <summary>An engine that this object did not start: the key of its run and its secrets stand in its environment, and nowhere else.</summary>
    private static EngineInstance Found(ProcessSidecar sidecar)
    {
        var variables = Libc.Environment(sidecar.IsAlive ? sidecar.Pid!.Value : 0);
        var recipe = BackendCatalogue.Of(LaunchSpec.FromJson(sidecar.Spec));
        var found = Instance(sidecar, variables.GetValueOrDefault(recipe?.KeyVariable ?? "", ""),
            [.. variables.SelectMany(variable => Redactor.SecretsOf(variable.Key, variable.Value))]);
        return found with
        {
            Env = EngineInstance.Named(sidecar.Spec, variables.GetValueOrDefault),
            IsEnded = !sidecar.IsAlive,
        };
    }

    private static EngineInstance Instance(ProcessSidecar sidecar, string key, IReadOnlyList<string> secrets) => new(
        sidecar.RunId, sidecar.DeploymentUid, sidecar.RunId, sidecar.Spec, sidecar.EnginePort, key, "", "", "", secrets);

    private static IEnumerable<string> Program(EngineLaunch launch) => Self(launch.Recipe.Command)
        .Select(word => launch.Install is { Folder.Length: > 0 } install ? word.Replace("{backend}", install.Folder, StringComparison.Ordinal) : word);

    /// <summary>Replaces <c>{modelhost}</c> by how this executable is started.</summary>
    private static string[] Self(string[] command)
    {
        var executable = Path.Combine(AppContext.BaseDirectory, "modelhost");
        string[] self = File.Exists(executable) ? [executable] : ["dotnet", executable + ".dll"];
        return [.. command.SelectMany(word => word == "{modelhost}" ? self : [word])];
    }
}
