using Microsoft.AspNetCore.Http;
using ModelHost.Agent;
using ModelHost.Agent.Runtimes;

namespace ModelHost.Tests.Docker;

/// <summary>Logs of containers, read on from where an earlier process came to.</summary>
public sealed class RuntimeLogTests
{
    // as Podman 4 writes them, in whole seconds
    private const string Whole = "2026-01-01T00:00:01Z a\n2026-01-01T00:00:02Z b\n2026-01-01T00:00:02Z c\n2026-01-01T00:00:02Z d\n2026-01-01T00:00:03Z e\n";
    private const string Exact = "2026-01-01T00:00:01.000000001Z a\n2026-01-01T00:00:01.000000002Z b\n2026-01-01T00:00:01.000000003Z c\n";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(Whole, 1)]
    [InlineData(Whole, 2)]
    [InlineData(Whole, 3)]
    [InlineData(Whole, 4)]
    [InlineData(Whole, 5)]
    [InlineData(Exact, 2)]
    public async Task Each_line_comes_once_also_where_several_carry_the_same_time(string log, int read)
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            context.Response.ContentType = "application/vnd.docker.raw-stream";
            await context.Response.WriteAsync(log);
        });
        using var containers = new ContainerEngine("podman", engine.Endpoint.OriginalString, new NodeOptions(), new NodeIdentity("c", "n", "/"), TimeProvider.System);
        var runtime = new DockerRuntime(containers, new NodeOptions(), new NodeIdentity("c", "n", "/"), "/", TimeProvider.System);
        var instance = new EngineInstance("id", "uid", "run", "{}", 41000, "", "image", "", "", []);

        var first = await runtime.FollowAsync(instance, null, Ct).Take(read).ToListAsync(Ct);
        var rest = await runtime.FollowAsync(instance, first[^1].Position, Ct).ToListAsync(Ct);

        string.Concat(first.Concat(rest).Select(line => line.Text)).ShouldBe(log.Length == Whole.Length ? "abcde" : "abc");
    }

    [Fact]
    public async Task A_place_that_is_a_time_alone_is_behind_all_lines_of_that_time()
    {
        await using var engine = await HandMadeEngine.StartAsync(async context =>
        {
            context.Response.ContentType = "application/vnd.docker.raw-stream";
            await context.Response.WriteAsync(Whole);
        });
        using var containers = new ContainerEngine("podman", engine.Endpoint.OriginalString, new NodeOptions(), new NodeIdentity("c", "n", "/"), TimeProvider.System);
        var runtime = new DockerRuntime(containers, new NodeOptions(), new NodeIdentity("c", "n", "/"), "/", TimeProvider.System);

        var rest = await runtime.FollowAsync(new EngineInstance("id", "uid", "run", "{}", 41000, "", "image", "", "", []), "2026-01-01T00:00:02Z", Ct).ToListAsync(Ct);

        rest.ShouldHaveSingleItem().Text.ShouldBe("e");
    }

    [Fact]
    public void Podman_is_found_where_its_socket_is()
    {
        var folder = Directory.CreateTempSubdirectory("mh-").FullName;
        Directory.CreateDirectory(Path.Combine(folder, "user", "podman"));
        File.WriteAllText(Path.Combine(folder, "user", "podman", "podman.sock"), "");

        PodmanSocket.Find(Path.Combine(folder, "none"), null, "", Path.Combine(folder, "user")).ShouldBe(Path.Combine(folder, "user", "podman", "podman.sock"));
        PodmanSocket.Find(Path.Combine(folder, "none"), null).ShouldBeNull();
        Directory.Delete(folder, recursive: true);
    }
}
