using System.Diagnostics;
using ModelHost.Core.Backends;

namespace ModelHost.TestKit;

/// <summary>
/// A real Docker engine for tests, with the images <c>modelhost-test/busybox:1</c> and <c>modelhost-test/aspnet:10</c>, that takes GPU requests.
/// It is the one named by <c>MODELHOST_TEST_DOCKER_HOST</c>, or else, for root, a private one that ends with this object. Where there is
/// none, <see cref="SkipReason"/> says why; <c>MODELHOST_TEST_DOCKER_SKIP</c> sets that reason from outside. <see cref="StartPodmanAsync"/> makes one of
/// Podman.
/// </summary>
public sealed class RealDocker : IAsyncDisposable
{
    /// <summary>Repository and tag of the simulator's image.</summary>
    public const string SimulatorRepository = "vllm/vllm-openai", SimulatorTag = "v0.28.0";

    /// <summary>Repository of the simulator's image with a Python and its pip, under the same tag.</summary>
    public const string PythonRepository = "modelhost-test/engine-python";

    private readonly Uri? _endpoint;
    private readonly string? _ownFolder;
    private readonly Lazy<Task> _simulator;
    private readonly Lazy<Task<string?>> _python;

    private RealDocker(Uri? endpoint, string? ownFolder, string? skipReason, string runtime = ContainerRuntimes.Docker)
    {
        (_endpoint, _ownFolder, SkipReason, Runtime) = (endpoint, ownFolder, skipReason, runtime);
        _simulator = new(MakeSimulatorAsync);
        _python = new(MakePythonAsync);
    }

    /// <summary>Why there is no engine; null when there is one.</summary>
    public string? SkipReason { get; }

    /// <summary>The runtime that starts containers on it.</summary>
    public string Runtime { get; }

    /// <summary>Of Podman: the folder of its CDI specifications.</summary>
    public string CdiFolder => Path.Combine(_ownFolder ?? throw new InvalidOperationException("not our own"), "cdi");

    /// <summary>Where it listens, <c>unix:///…</c>.</summary>
    public Uri Endpoint => _endpoint ?? throw new InvalidOperationException(SkipReason);

    /// <summary>The folder of the solution, found upwards of the test binaries.</summary>
    public static string RepositoryRoot
    {
        get
        {
            for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
                if (File.Exists(Path.Combine(folder.FullName, "ModelHost.sln")))
                    return folder.FullName;
            throw new InvalidOperationException($"no ModelHost.sln above {AppContext.BaseDirectory}");
        }
    }

    private static string Bench => Path.Combine(RepositoryRoot, "tests", "bench");

    /// <summary>Finds or starts an engine. Does not throw for want of one.</summary>
    public static async Task<RealDocker> StartAsync(CancellationToken cancellationToken)
    {
        if (Environment.GetEnvironmentVariable("MODELHOST_TEST_DOCKER_SKIP") is { Length: > 0 } reason)
            return new(null, null, reason);
        if (Environment.GetEnvironmentVariable("MODELHOST_TEST_DOCKER_HOST") is { Length: > 0 } host)
            return new(new Uri(host), null, null);
        if (!Environment.IsPrivilegedProcess)
            return new(null, null, "no Docker engine: starting one needs root (or name one in MODELHOST_TEST_DOCKER_HOST)");
        return await StartOwnAsync(ContainerRuntimes.Docker, new() { ["DOCKER_PATH"] = Path.Combine(Bench, "gpu-hook") }, cancellationToken);
    }

    /// <summary>Starts another engine beside this one, without images: that of another node. It ends with its object.</summary>
    public Task<RealDocker> StartAnotherAsync(CancellationToken cancellationToken) => SkipReason is not null ? Task.FromResult<RealDocker>(new(null, null, SkipReason))
        : Environment.IsPrivilegedProcess ? StartOwnAsync(ContainerRuntimes.Docker, [], cancellationToken, withImages: false)
        : Task.FromResult<RealDocker>(new(null, null, "no second Docker engine: starting one needs root"));

    /// <summary>Starts a Podman of its own, for root; <c>MODELHOST_TEST_PODMAN_SKIP</c> says that there is none. Does not throw for want of one.</summary>
    /// <param name="insecureRegistry">Host and port of a registry without TLS.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async Task<RealDocker> StartPodmanAsync(string insecureRegistry, CancellationToken cancellationToken)
    {
        var reason = Environment.GetEnvironmentVariable("MODELHOST_TEST_PODMAN_SKIP") is { Length: > 0 } given ? given
            : Environment.IsPrivilegedProcess ? null : "no Podman: starting one needs root";
        return reason is null ? await StartOwnAsync(ContainerRuntimes.Podman, new() { ["PODMAN_INSECURE"] = insecureRegistry }, cancellationToken) : new(null, null, reason, ContainerRuntimes.Podman);
    }

    private static async Task<RealDocker> StartOwnAsync(string runtime, Dictionary<string, string> environment, CancellationToken cancellationToken, bool withImages = true)
    {
        // a short path: the name of a unix socket has at most 107 characters
        var folder = Directory.CreateTempSubdirectory("mhdk-").FullName;
        try
        {
            var said = await RunAsync(Path.Combine(Bench, $"start-{runtime}"), [folder], environment, cancellationToken);
            var endpoint = said.Trim()["DOCKER_HOST=".Length..];
            var docker = new Dictionary<string, string> { ["DOCKER_HOST"] = endpoint };
            if (withImages)
                await RunAsync(Path.Combine(Bench, "make-base-images"), [], docker, cancellationToken);
            return new(new Uri(endpoint), folder, null, runtime);
        }
        catch (InvalidOperationException e)
        {
            await StopAsync(runtime, folder);
            return new(null, null, $"no {runtime} could be started: {e.Message}", runtime);
        }
        catch
        {
            await StopAsync(runtime, folder);
            throw;
        }
    }

    /// <summary>Runs the docker command line on this engine and returns its output. Throws with its errors when it fails.</summary>
    public Task<string> CliAsync(CancellationToken cancellationToken, params string[] arguments) =>
        RunAsync("docker", arguments, new Dictionary<string, string> { ["DOCKER_HOST"] = Endpoint.OriginalString }, cancellationToken);

    /// <summary>Makes the simulator's image from the built product, under the name by which the product pulls vLLM; once for all callers.</summary>
    public Task NeedSimulatorAsync() => _simulator.Value;

    /// <summary>Makes the simulator's image with a Python and its pip; once for all callers.</summary>
    /// <returns>Why this machine cannot; null: it is there.</returns>
    public Task<string?> NeedPythonAsync() => _python.Value;

    /// <summary>Ends the engine if it was started here, with its containers and images.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_ownFolder is not null)
            await StopAsync(Runtime, _ownFolder);
    }

    private async Task MakeSimulatorAsync()
    {
        // the build output holds what a publish would: …/tests/PROJECT/bin/CONFIGURATION/FRAMEWORK lies like src/ModelHost/bin/…
        var output = new DirectoryInfo(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        var product = Path.Combine(RepositoryRoot, "src", "ModelHost", "bin", output.Parent!.Name, output.Name);
        var environment = new Dictionary<string, string> { ["DOCKER_HOST"] = Endpoint.OriginalString, ["MODELHOST_PUBLISH_DIR"] = product };
        await RunAsync(Path.Combine(Bench, "make-simulator-image"), [$"{SimulatorRepository}:{SimulatorTag}"], environment, CancellationToken.None);
    }

    private async Task<string?> MakePythonAsync()
    {
        await NeedSimulatorAsync();
        try
        {
            await RunAsync(Path.Combine(Bench, "make-python-image"), [$"{PythonRepository}:{SimulatorTag}"],
                new Dictionary<string, string> { ["DOCKER_HOST"] = Endpoint.OriginalString }, CancellationToken.None);
            return null;
        }
        catch (InvalidOperationException e) when (e.Message.Contains(" ended with 3: ", StringComparison.Ordinal))
        {
            return e.Message;
        }
    }

    private static async Task StopAsync(string runtime, string folder) =>
        await RunAsync(Path.Combine(Bench, $"stop-{runtime}"), [folder, "--purge"], new Dictionary<string, string>(), CancellationToken.None);

    private static async Task<string> RunAsync(
        string program, string[] arguments, Dictionary<string, string> environment, CancellationToken cancellationToken)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        foreach (var (name, value) in environment)
            start.Environment[name] = value;
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        var output = process.StandardOutput.ReadToEndAsync(cancellationToken);
        var errors = process.StandardError.ReadToEndAsync(cancellationToken);
        await process.WaitForExitAsync(cancellationToken);
        return process.ExitCode == 0
            ? await output
            : throw new InvalidOperationException(
                $"{Path.GetFileName(program)} {string.Join(' ', arguments)} ended with {process.ExitCode}: {await errors}");
    }
}
