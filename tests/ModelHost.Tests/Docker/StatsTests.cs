using System.Net;
using ModelHost.Docker;

namespace ModelHost.Tests.Docker;

public sealed class StatsTests
{
    /// <summary>Recorded: Docker 20.10 on cgroup v1, a busy container with 3 MiB of page cache. The kernel counts no disks.</summary>
    private const string CgroupV1 = """
        {"read":"2026-11-20T13:00:15.242520017Z","preread":"2026-11-20T13:00:14.23951849Z","pids_stats":{"current":1},
        "blkio_stats":{"io_service_bytes_recursive":[],"io_serviced_recursive":[],"io_queue_recursive":[],"io_service_time_recursive":[],
        "io_wait_time_recursive":[],"io_merged_recursive":[],"io_time_recursive":[],"sectors_recursive":[]},"num_procs":0,"storage_stats":{},
        "cpu_stats":{"cpu_usage":{"total_usage":916719146,"percpu_usage":[790644455,126074691],"usage_in_kernelmode":30000000,
        "usage_in_usermode":880000000},"system_cpu_usage":15585180000000,"online_cpus":2,
        "throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},
        "precpu_stats":{"cpu_usage":{"total_usage":471350755,"percpu_usage":[345276064,126074691],"usage_in_kernelmode":20000000,
        "usage_in_usermode":440000000},"system_cpu_usage":15583160000000,"online_cpus":2,
        "throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},
        "memory_stats":{"usage":3690496,"max_usage":5238784,"stats":{"active_anon":4096,"active_file":20480,"cache":3166208,"dirty":0,
        "hierarchical_memory_limit":67108864,"hierarchical_memsw_limit":134217728,"inactive_anon":61440,"inactive_file":3145728,"mapped_file":0,
        "pgfault":2318,"pgmajfault":1,"pgpgin":1942,"pgpgout":1918,"rss":65536,"rss_huge":0,"total_active_anon":4096,"total_active_file":20480,
        "total_cache":3166208,"total_dirty":0,"total_inactive_anon":61440,"total_inactive_file":3145728,"total_mapped_file":0,
        "total_pgfault":2318,"total_pgmajfault":1,"total_pgpgin":1942,"total_pgpgout":1918,"total_rss":65536,"total_rss_huge":0,
        "total_unevictable":0,"total_writeback":0,"unevictable":0,"writeback":0},"limit":67108864},"name":"/rec",
        "id":"a6bc66d1236fc8772e5c310bfcfceccf1ae2cc751a6ca2b6544c48dd4891f055","networks":{"eth0":{"rx_bytes":736,"rx_packets":8,"rx_errors":0,
        "rx_dropped":0,"tx_bytes":0,"tx_packets":0,"tx_errors":0,"tx_dropped":0}}}
        """;

    /// <summary>In the shape of cgroup v2: no times per processor, other names of memory, small operations, no limit written as all ones.</summary>
    private const string CgroupV2 = """
        {"read":"2026-11-20T13:00:15.242520017Z","preread":"2026-11-20T13:00:14.23951849Z","pids_stats":{"current":25,"limit":18446744073709551615},
        "blkio_stats":{"io_service_bytes_recursive":[{"major":259,"minor":0,"op":"read","value":8192000},
        {"major":259,"minor":0,"op":"write","value":4096},{"major":253,"minor":0,"op":"read","value":1000},
        {"major":253,"minor":0,"op":"write","value":24}],"io_serviced_recursive":null,"io_queue_recursive":null,
        "io_service_time_recursive":null,"io_wait_time_recursive":null,"io_merged_recursive":null,"io_time_recursive":null,
        "sectors_recursive":null},"num_procs":0,"storage_stats":{},
        "cpu_stats":{"cpu_usage":{"total_usage":9000000000,"usage_in_kernelmode":1000000000,"usage_in_usermode":8000000000},
        "system_cpu_usage":80008000000000,"online_cpus":8,"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},
        "precpu_stats":{"cpu_usage":{"total_usage":7000000000,"usage_in_kernelmode":900000000,"usage_in_usermode":6100000000},
        "system_cpu_usage":80000000000000,"online_cpus":8,"throttling_data":{"periods":0,"throttled_periods":0,"throttled_time":0}},
        "memory_stats":{"usage":600000000,"stats":{"active_anon":1,"active_file":2,"anon":400000000,"anon_thp":0,"file":190000000,"file_dirty":0,
        "file_mapped":0,"file_writeback":0,"inactive_anon":399999999,"inactive_file":150000000,"kernel_stack":16384,"pgactivate":0,
        "pgdeactivate":0,"pgfault":5000,"pglazyfree":0,"pgmajfault":0,"pgrefill":0,"pgscan":0,"pgsteal":0,"shmem":0,"slab":1000,
        "slab_reclaimable":600,"slab_unreclaimable":400,"sock":0,"thp_collapse_alloc":0,"thp_fault_alloc":0,"unevictable":0,
        "workingset_activate":0,"workingset_nodereclaim":0,"workingset_refault":0},"limit":18446744073709551615},"name":"/web","id":"b",
        "networks":{"eth0":{"rx_bytes":100,"rx_packets":1,"rx_errors":0,"rx_dropped":0,"tx_bytes":10,"tx_packets":1,"tx_errors":0,"tx_dropped":0},
        "eth1":{"rx_bytes":5,"rx_packets":1,"rx_errors":0,"rx_dropped":0,"tx_bytes":7,"tx_packets":1,"tx_errors":0,"tx_dropped":0}}}
        """;

    /// <summary>Recorded: a container that has ended.</summary>
    private const string Ended = """
        {"read":"0001-01-01T00:00:00Z","preread":"0001-01-01T00:00:00Z","pids_stats":{},"blkio_stats":{"io_service_bytes_recursive":null,
        "io_serviced_recursive":null},"num_procs":0,"storage_stats":{},
        "cpu_stats":{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},"throttling_data":{"periods":0}},
        "precpu_stats":{"cpu_usage":{"total_usage":0,"usage_in_kernelmode":0,"usage_in_usermode":0},"throttling_data":{"periods":0}},
        "memory_stats":{},"name":"/web","id":"b"}
        """;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_engine_is_asked_for_two_measurements_at_once()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(Ended);
        using var client = new DockerClient(engine.Endpoint);

        await client.ReadStatsAsync("/web", Ct);

        engine.Calls.ShouldHaveSingleItem().ToString().ShouldBe("GET /containers/web/stats?stream=0");
    }

    [Fact]
    public async Task Counters_of_cgroup_v1_are_read()
    {
        var stats = await ReadAsync(CgroupV1);

        stats.CpuPercent.ShouldNotBeNull().ShouldBe(44.096, 0.001);
        (stats with { CpuPercent = null }).ShouldBe(new ContainerStats
        {
            ReadAt = new DateTimeOffset(2026, 11, 20, 13, 0, 15, TimeSpan.Zero).AddTicks(2425200),
            MemoryUsageBytes = 3690496 - 3145728,
            MemoryLimitBytes = 64 << 20,
            CpuNanoseconds = 916719146,
            SystemCpuNanoseconds = 15585180000000,
            OnlineCpus = 2,
            Pids = 1,
            NetworkReceivedBytes = 736,
            NetworkSentBytes = 0,
        });
    }

    [Fact]
    public async Task Counters_of_cgroup_v2_are_read()
    {
        var stats = await ReadAsync(CgroupV2);

        stats.CpuPercent.ShouldBe(200);
        stats.MemoryUsageBytes.ShouldBe(450_000_000);
        stats.MemoryLimitBytes.ShouldBe(long.MaxValue);
        stats.OnlineCpus.ShouldBe(8);
        stats.Pids.ShouldBe(25);
        (stats.NetworkReceivedBytes, stats.NetworkSentBytes).ShouldBe((105, 17));
        (stats.BlockReadBytes, stats.BlockWrittenBytes).ShouldBe((8193000, 4120));
    }

    [Fact]
    public async Task A_container_that_does_not_run_uses_nothing() => (await ReadAsync(Ended)).ShouldBe(new ContainerStats());

    [Fact]
    public async Task Disks_of_cgroup_v1_are_summed_without_the_totals()
    {
        var stats = await ReadAsync("""
            {"cpu_stats":{},"memory_stats":{},"blkio_stats":{"io_service_bytes_recursive":[
            {"major":8,"minor":0,"op":"Read","value":5},{"major":8,"minor":0,"op":"Write","value":7},{"major":8,"minor":0,"op":"Sync","value":12},
            {"major":8,"minor":0,"op":"Async","value":0},{"major":8,"minor":0,"op":"Discard","value":0},{"major":8,"minor":0,"op":"Total","value":12},
            {"major":9,"minor":0,"op":"Read","value":1},{"op":""},{}]}}
            """);

        (stats.BlockReadBytes, stats.BlockWrittenBytes).ShouldBe((6, 7));
    }

    [Theory]
    [InlineData("""{"usage":100,"stats":{"total_inactive_file":30,"inactive_file":10}}""", 70)]
    [InlineData("""{"usage":100,"stats":{"total_inactive_file":100,"inactive_file":10}}""", 90)]
    [InlineData("""{"usage":100,"stats":{"inactive_file":10}}""", 90)]
    [InlineData("""{"usage":100,"stats":{"inactive_file":200}}""", 100)]
    [InlineData("""{"usage":100,"stats":null}""", 100)]
    [InlineData("""{"usage":100}""", 100)]
    public async Task Page_cache_is_no_use_of_memory(string memory, long bytes) =>
        (await ReadAsync($$$"""{"cpu_stats":{},"memory_stats":{{{memory}}}}""")).MemoryUsageBytes.ShouldBe(bytes);

    [Theory]
    [InlineData(100, 1000, 150, 1100, 50.0)]
    [InlineData(100, 1000, 100, 1100, 0.0)]
    [InlineData(0, 0, 150, 1100, null)]
    [InlineData(100, 1000, 50, 1100, null)]
    [InlineData(100, 1000, 150, 1000, null)]
    [InlineData(100, 1000, 150, 900, null)]
    public async Task Processor_use_needs_two_measurements_in_order(long total0, long system0, long total1, long system1, double? percent)
    {
        var stats = await ReadAsync($$$"""
            {"precpu_stats":{"cpu_usage":{"total_usage":{{{total0}}} },"system_cpu_usage":{{{system0}}} },
            "cpu_stats":{"cpu_usage":{"total_usage":{{{total1}}},"percpu_usage":[{{{total1}}}]},"system_cpu_usage":{{{system1}}} },"memory_stats":{}}
            """);

        stats.CpuPercent.ShouldBe(percent);
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("""{"cpu_stats":{},"memory_stats":{"usage":-1}}""")]
    [InlineData("""{"cpu_stats":{"cpu_usage":[]},"memory_stats":{}}""")]
    [InlineData("no stats")]
    [InlineData("")]
    public async Task What_are_no_statistics_is_a_failure(string body) =>
        (await Should.ThrowAsync<DockerException>(ReadAsync(body))).EngineMessage.ShouldStartWith("the answer cannot be read: ");

    [Fact]
    public async Task An_absent_container_has_no_statistics()
    {
        await using var engine = await HandMadeEngine.AnsweringAsync("""{"message":"No such container: a"}""", 404);
        using var client = new DockerClient(engine.Endpoint);

        (await Should.ThrowAsync<DockerException>(client.ReadStatsAsync("a", Ct))).StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    [Fact]
    public async Task Cancelling_a_measurement_closes_the_connection()
    {
        await using var engine = await SilentEngine.StartAsync("{");
        using var client = new DockerClient(engine.Endpoint);
        using var cancelling = new CancellationTokenSource();

        var reading = client.ReadStatsAsync("a", cancelling.Token);
        await engine.Asked;
        await cancelling.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(reading);
        await engine.ClosedByClient;
    }

    private static async Task<ContainerStats> ReadAsync(string body)
    {
        await using var engine = await HandMadeEngine.AnsweringAsync(body);
        using var client = new DockerClient(engine.Endpoint);
        return await client.ReadStatsAsync("a", Ct);
    }
}
