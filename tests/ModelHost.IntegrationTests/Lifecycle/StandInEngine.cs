using System.Text;
using ModelHost.IntegrationTests.Docker;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>
/// A registry with an image that takes an engine's arguments and answers its health check, and nothing else: small enough to be pulled in
/// tests, over a network that can be as bad as a test needs it.
/// </summary>
internal sealed class StandInEngine : IAsyncDisposable
{
    /// <summary>The tag of the first release.</summary>
    public const string Tag = "v1.0.0";

    /// <summary>Bytes per second at which the image takes about ten seconds.</summary>
    public const long Slow = 500_000;

    private const int WeightBytes = 4 << 20;

    private const string Serve = """
        while [ $# -gt 0 ]; do
            [ "$1" = --port ] && port=$2
            shift
        done
        exec /bin/busybox httpd -f -p "127.0.0.1:$port" -h /www
        """;

    private readonly RealDockerFixture _fixture;
    private readonly HandMadeRegistry _registry;
    private readonly (string Digest, string DiffId) _program;

    private StandInEngine(RealDockerFixture fixture, HandMadeRegistry registry, (string Digest, string DiffId) program)
    {
        (_fixture, _registry, _program, Network) = (fixture, registry, program, new NetworkRelay(registry.Host));
        Bytes = Release(Tag);
    }

    /// <summary>What lies between the engine and the registry.</summary>
    public NetworkRelay Network { get; }

    /// <summary>Address and port of the registry, as the engine reaches it.</summary>
    public string Registry => Network.Host;

    /// <summary>The image's name without tag.</summary>
    public string Repository => $"{Registry}/team/engine";

    /// <summary>Compressed bytes of the layers of the first release.</summary>
    public long Bytes { get; }

    /// <summary>Makes the image.</summary>
    /// <param name="fixture">An engine, for its busybox.</param>
    public static async Task<StandInEngine> MakeAsync(RealDockerFixture fixture)
    {
        var program = await BusyboxAsync(fixture.Docker); // skips first where there is no engine
        var registry = await HandMadeRegistry.StartAsync();
        return new StandInEngine(fixture, registry, registry.AddLayer(
            ("bin/busybox", program), ("serve", Encoding.ASCII.GetBytes(Serve)), ("www/health", []), ("www/metrics", []),
            // the images of tests that run at the same time share no layer: an engine pulls only what it does not have
            ($"of-{registry.Host}", [])));
    }

    /// <summary>Adds a release of the image, with a layer of its own.</summary>
    /// <returns>Compressed bytes of its layers.</returns>
    public long Release(string tag)
    {
        var weight = _registry.AddLayer($"weight-{_registry.Host}", WeightBytes);
        _registry.AddImage("team/engine", tag, ["/bin/busybox", "sh", "/serve"], [_program, weight]);
        return _registry.Bytes(_program.Digest) + _registry.Bytes(weight.Digest);
    }

    /// <summary>Refuses everything to those who do not log in, from now on.</summary>
    /// <param name="login"><c>user:password</c> that it takes; empty: nobody has one.</param>
    /// <param name="wantsToken">Whether it takes it for a token alone.</param>
    public void Lock(string login = "", bool wantsToken = false) => (_registry.Login, _registry.WantsToken) = (login, wantsToken);

    public async ValueTask DisposeAsync()
    {
        await Network.DisposeAsync();
        await _registry.DisposeAsync();
        if ((await _fixture.Docker.CliAsync(CancellationToken.None, "images", "--format", "{{.Repository}}:{{.Tag}}", Repository)).Split('\n', StringSplitOptions.RemoveEmptyEntries) is { Length: > 0 } images)
            await _fixture.Docker.CliAsync(CancellationToken.None, ["rmi", "-f", .. images]);
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
