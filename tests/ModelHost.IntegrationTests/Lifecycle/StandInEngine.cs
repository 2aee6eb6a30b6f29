using System.Text;
using ModelHost.IntegrationTests.Docker;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>
/// A registry with an image that takes an engine's arguments and answers its health check, and nothing else: small enough to be pulled in
/// tests, of two layers of which one can be held back.
/// </summary>
internal sealed class StandInEngine : IAsyncDisposable
{
    /// <summary>The tag of the image.</summary>
    public const string Tag = "v1.0.0";

    private const string Serve = """
        while [ $# -gt 0 ]; do
            [ "$1" = --port ] && port=$2
            shift
        done
        exec /bin/busybox httpd -f -p "127.0.0.1:$port" -h /www
        """;

    private readonly RealDockerFixture _fixture;
    private readonly HandMadeRegistry _registry;

    private StandInEngine(RealDockerFixture fixture, HandMadeRegistry registry) => (_fixture, _registry) = (fixture, registry);

    /// <summary>The image's name without tag.</summary>
    public string Repository => $"{_registry.Host}/team/engine";

    /// <summary>Completes when the engine gives its download up.</summary>
    public Task GivenUp => _registry.GivenUp.Task;

    /// <summary>Makes the image.</summary>
    /// <param name="fixture">An engine, for its busybox.</param>
    /// <param name="stuck">Whether the download stops half way.</param>
    public static async Task<StandInEngine> MakeAsync(RealDockerFixture fixture, bool stuck = false)
    {
        var program = await BusyboxAsync(fixture.Docker); // skips first where there is no engine
        var registry = await HandMadeRegistry.StartAsync();
        var busybox = registry.AddLayer(
            ("bin/busybox", program), ("serve", Encoding.ASCII.GetBytes(Serve)), ("www/health", []), ("www/metrics", []));
        var weight = registry.AddLayer("weight", 4 << 20);
        registry.AddImage("team/engine", Tag, ["/bin/busybox", "sh", "/serve"], [busybox, weight]);
        if (stuck)
            registry.GetStuckAt(weight.Digest);
        return new StandInEngine(fixture, registry);
    }

    /// <summary>Lets the download go on.</summary>
    public void GetLoose() => _registry.GetLoose();

    public async ValueTask DisposeAsync()
    {
        await _registry.DisposeAsync();
        if ((await _fixture.Docker.CliAsync(CancellationToken.None, "images", "-q", Repository)).Length > 0)
            await _fixture.Docker.CliAsync(CancellationToken.None, "rmi", "-f", $"{Repository}:{Tag}");
    }

    private static async Task<byte[]> BusyboxAsync(RealDocker docker)
    {
        var folder = Directory.CreateTempSubdirectory("mh-busybox-").FullName;
        var id = (await docker.CliAsync(CancellationToken.None, "create", "modelhost-test/busybox:1")).Trim();
        await docker.CliAsync(CancellationToken.None, "cp", $"{id}:/bin/busybox", $"{folder}/busybox");
        await docker.CliAsync(CancellationToken.None, "rm", id);
        var program = await File.ReadAllBytesAsync(Path.Combine(folder, "busybox"));
        Directory.Delete(folder, recursive: true);
        return program;
    }
}
