using System.Net;
using ModelHost.Docker;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Docker;

public sealed class LiveStatsTests(RealDockerFixture fixture)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_busy_container_uses_a_processor_and_memory()
    {
        await using var live = new LiveContainers(fixture);
        var id = await live.StartAsync(live.Shell("while :; do :; done"));

        var first = await live.Client.ReadStatsAsync(id, Ct);
        // one loop uses at most one processor, and gets little of it on a busy machine, where the two that are compared are not read at one moment either
        var second = await Deadline.UntilAsync(() => live.Client.ReadStatsAsync(id, Ct), stats => stats.CpuPercent is >= 1 and <= 120, what: "the use of about a processor");

        first.ReadAt.ShouldNotBeNull();
        first.Pids.ShouldBeGreaterThan(0);
        first.OnlineCpus.ShouldBeGreaterThan(0);
        first.MemoryUsageBytes.ShouldBeGreaterThan(0);
        first.MemoryLimitBytes.ShouldBeGreaterThan(first.MemoryUsageBytes);
        first.NetworkReceivedBytes.ShouldNotBeNull();
        second.ReadAt.ShouldNotBeNull().ShouldBeGreaterThan(first.ReadAt.Value);
        second.CpuNanoseconds.ShouldBeGreaterThan(first.CpuNanoseconds);
        second.SystemCpuNanoseconds.ShouldBeGreaterThan(first.SystemCpuNanoseconds);
    }

    [Fact]
    public async Task On_the_machines_network_no_bytes_are_counted()
    {
        await using var live = new LiveContainers(fixture);
        var id = await live.StartAsync(live.Shell("sleep 100") with { NetworkMode = "host" });

        var stats = await live.Client.ReadStatsAsync(id, Ct);

        stats.ReadAt.ShouldNotBeNull();
        stats.NetworkReceivedBytes.ShouldBeNull();
        stats.CpuPercent.ShouldNotBeNull().ShouldBeLessThan(100);
    }

    [Fact]
    public async Task A_container_that_does_not_run_uses_nothing_and_an_absent_one_is_a_failure()
    {
        await using var live = new LiveContainers(fixture);
        var id = await live.CreateAsync(live.Shell("true"));

        var stats = await live.Client.ReadStatsAsync(id, Ct);
        var failure = await Should.ThrowAsync<DockerException>(live.Client.ReadStatsAsync($"no-{live.Mark}", Ct));

        stats.ShouldBe(new ContainerStats());
        failure.StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }
}
