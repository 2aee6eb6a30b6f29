using System.Net;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Core.Nodes;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Nodes;

/// <summary>The figures that are kept of nodes.</summary>
public sealed class NodeHistoryTests
{
    private static readonly TimeSpan s_year = TimeSpan.FromDays(365);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_node_that_answers_has_a_history_by_itself()
    {
        using var surroundings = new TestNode(gpus: 1);
        await using var host = await ControlPlane.StartAsync(surroundings);
        var node = await host.Client.NodeAsync("process");

        var history = await Deadline.UntilAsync(() => host.Client.JsonAsync($"/api/nodes/{node}/metrics/history"), h => Whole(h).Any(), 60, "a sample");

        // a sample that was taken before all had been read stays as it is
        static IEnumerable<JsonElement> Whole(JsonElement history) => history.GetProperty("points").EnumerateArray()
            .Where(point => point.GetProperty("cpu_percent").ValueKind == JsonValueKind.Number && point.GetProperty("disk_usage").ValueKind == JsonValueKind.Object
                && point.GetProperty("gpus") is var gpus && gpus.GetArrayLength() == 1 && gpus[0].GetProperty("memory_total_mb").ValueKind == JsonValueKind.Number);
        var point = Whole(history).First();
        history.GetProperty("node_id").GetInt32().ShouldBe(node);
        point.GetProperty("memory_percent").GetDouble().ShouldBeInRange(0.1, 100);
        point.GetProperty("disk_usage").GetProperty("total_gb").GetDouble().ShouldBeGreaterThan(0);
        point.GetProperty("gpus")[0].GetProperty("memory_total_mb").GetDouble().ShouldBe(81559);
        point.GetProperty("span_seconds").GetInt32().ShouldBe(0);
        var at = point.GetProperty("recorded_at").GetDateTimeOffset();
        (at.Offset, at > DateTimeOffset.UtcNow.AddMinutes(-5)).ShouldBe((TimeSpan.Zero, true));
    }

    [Fact]
    public async Task Every_step_th_sample_of_the_last_minutes_is_told_in_order()
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var (history, node, other) = (host.Services.GetRequiredService<NodeHistory>(), await AddAsync(host), await AddAsync(host));
        var now = time.GetUtcNow();
        for (var i = 20; i >= 1; i--)
            await history.StoreAsync(now.AddSeconds(-60 - (120 * i)), [(node, new NodeFigures { CpuPercent = i }), (other, new NodeFigures { CpuPercent = 99 })], Ct);

        (await CpuAsync(host, node, "")).ShouldBe([20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        (await CpuAsync(host, node, "?step=7")).ShouldBe([20, 13, 6]);
        (await CpuAsync(host, node, "?step=525600")).ShouldBe([20]);
        (await CpuAsync(host, node, "?minutes=8&step=2")).ShouldBe([3, 1], "3, 5 and 7 minutes ago");
    }

    [Theory]
    [InlineData("?minutes=0", "minutes")]
    [InlineData("?minutes=-5", "minutes")]
    [InlineData("?minutes=525601", "minutes")]
    [InlineData("?minutes=x", "minutes")]
    [InlineData("?minutes=99999999999", "minutes")]
    [InlineData("?step=0", "step")]
    [InlineData("?step=1.5", "step")]
    public async Task What_cannot_be_asked_is_refused_by_name(string query, string field)
    {
        await using var host = await StartAsync(new ShiftedTime());
        var node = await AddAsync(host);

        await host.Client.GetAsync(new Uri($"/api/nodes/{node}/metrics/history{query}", UriKind.Relative), Ct)
            .ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);
    }

    [Fact]
    public async Task A_node_that_there_is_not_has_none()
    {
        await using var host = await StartAsync(new ShiftedTime());

        await host.Client.GetAsync(new Uri($"/api/nodes/{int.MaxValue}/metrics/history", UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.NotFound, "node.not_found");
    }

    [Fact]
    public async Task After_two_days_samples_become_means_of_half_hours()
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var (history, node) = (host.Services.GetRequiredService<NodeHistory>(), await AddAsync(host));
        var begin = HalfHour(time.GetUtcNow());
        for (var i = 0; i < 60; i++) // one every two minutes: four half hours
            await history.StoreAsync(begin.AddMinutes(2 * i), [(node, Figures(i))], Ct);

        // in the middle of a half hour: none ends meanwhile
        time.Advance(begin.AddHours(48).AddMinutes(75) - time.GetUtcNow());
        await history.TidyAsync(s_year, Ct);
        var once = await CountAsync(host);
        await history.TidyAsync(s_year, Ct);

        once.ShouldBe((30, 2), "those that ended 48 hours ago");
        (await CountAsync(host)).ShouldBe(once);
        var points = (await host.Client.JsonAsync($"/api/nodes/{node}/metrics/history?minutes=100000")).GetProperty("points").EnumerateArray().ToArray();
        points.Length.ShouldBe(once.Samples + once.Summaries);
        points.Select(point => point.GetProperty("recorded_at").GetDateTimeOffset()).ShouldBeInOrder();
        points[1].GetProperty("recorded_at").GetDateTimeOffset().ShouldBe(begin.AddMinutes(30));
        points[1].GetProperty("span_seconds").GetInt32().ShouldBe(1800);
        points[1].GetProperty("cpu_percent").GetDouble().ShouldBe(22, "the mean of 15 to 29");
        points[1].GetProperty("gpus")[0].GetProperty("memory_used_mb").GetDouble().ShouldBe(22_000);
        points[^1].GetProperty("span_seconds").GetInt32().ShouldBe(0);
    }

    [Fact]
    public async Task A_long_pause_is_made_up_for_in_steps()
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var node = await AddAsync(host);
        var begin = HalfHour(time.GetUtcNow());
        await using (var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct))
        {
            db.NodeSamples.AddRange(Enumerable.Range(0, 12_000).Select(i => new NodeSample { Key = StoredFigures.KeyOf(node, begin.AddSeconds(10 * i)), Figures = Figures(1).ToBytes() }));
            await db.SaveChangesAsync(Ct);
        }

        time.Advance(TimeSpan.FromDays(30));
        await host.Services.GetRequiredService<NodeHistory>().TidyAsync(s_year, Ct);

        (await CountAsync(host)).ShouldBe((0, 67)); // 12,000 times 10 s are 66 half hours and a part of one
    }

    [Fact]
    public async Task What_the_retention_does_not_keep_goes_means_included()
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var (history, node) = (host.Services.GetRequiredService<NodeHistory>(), await AddAsync(host));
        await history.StoreAsync(time.GetUtcNow(), [(node, Figures(1))], Ct);
        time.Advance(TimeSpan.FromHours(60));
        await history.StoreAsync(time.GetUtcNow(), [(node, Figures(2))], Ct);
        await history.TidyAsync(TimeSpan.FromHours(100), Ct);
        (await CountAsync(host)).ShouldBe((1, 1));

        await history.TidyAsync(TimeSpan.FromHours(59), Ct);
        (await CountAsync(host)).ShouldBe((1, 0));
        time.Advance(TimeSpan.FromHours(1.1));
        await history.TidyAsync(TimeSpan.FromHours(1), Ct);
        (await CountAsync(host)).ShouldBe((0, 0));
    }

    [Fact]
    public async Task The_setting_for_the_retention_acts_at_once()
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var (history, node) = (host.Services.GetRequiredService<NodeHistory>(), await AddAsync(host));
        await history.StoreAsync(time.GetUtcNow(), [(node, Figures(1))], Ct);
        time.Advance(TimeSpan.FromHours(40));
        (await CountAsync(host)).Samples.ShouldBe(1);

        using var answer = await host.Client.PutAsync(new Uri("/api/settings", UriKind.Relative), new StringContent("""{"node_metrics_retention_hours":30}""", null, "application/json"), Ct);
        answer.EnsureSuccessStatusCode();

        await Deadline.UntilAsync(() => CountAsync(host), count => count.Samples == 0, what: "the sample to go");
    }

    [Fact]
    public async Task A_clock_that_was_set_back_and_a_node_that_is_gone_stop_nothing()
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var (history, node, other) = (host.Services.GetRequiredService<NodeHistory>(), await AddAsync(host), await AddAsync(host));
        var now = time.GetUtcNow();

        await history.StoreAsync(now, [(node, Figures(1))], Ct);
        await history.StoreAsync(now, [(node, Figures(2)), (other, Figures(3)), (12345, Figures(4))], Ct);

        (await CountAsync(host)).Samples.ShouldBe(2);
        (await CpuAsync(host, node, "?minutes=5")).ShouldBe([1]);
        (await CpuAsync(host, other, "?minutes=5")).ShouldBe([3]);
    }

    [Fact]
    public async Task More_points_than_can_be_told_are_refused_with_the_way_out()
    {
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var node = await AddAsync(host);
        var now = time.GetUtcNow();
        await using (var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct))
        {
            db.NodeSamples.AddRange(Enumerable.Range(1, 20_001).Select(i => new NodeSample { Key = StoredFigures.KeyOf(node, now.AddSeconds(-i)), Figures = Figures(1).ToBytes() }));
            await db.SaveChangesAsync(Ct);
        }

        await host.Client.GetAsync(new Uri($"/api/nodes/{node}/metrics/history?minutes=600", UriKind.Relative), Ct)
            .ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", "step");
        (await CpuAsync(host, node, "?minutes=600&step=2")).Length.ShouldBe(10_001);
    }

    [Fact]
    public void Figures_that_are_not_current_are_unknown()
    {
        var figures = NodeHistoryWriter.Figures(new NodeReport
        {
            Gpus = { new Gpu { Index = 0, MemoryUsedBytes = 5L << 20, Stale = "hung" }, new Gpu { Index = 1, MemoryUsedBytes = 5L << 20, UtilizationPercent = 3 } },
            Memory = new Memory { TotalBytes = 100, AvailableBytes = 25 },
        });

        figures.Gpus.ShouldBe([new(0), new(1) { MemoryUsedMb = 5, Utilization = 3 }]);
        (figures.CpuPercent, figures.MemoryPercent, figures.DiskTotalBytes).ShouldBe((null, 75, null));
    }

    /// <summary>
    /// Nodes with 8 GPUs whose figures all move, a hundred of them, written as they are in operation: one transaction for all. The pages of the
    /// database that the rows take, indices and half-filled pages included, give the bytes of a row.
    /// </summary>
    [Fact]
    public async Task A_year_of_a_hundred_nodes_stays_under_a_gigabyte()
    {
        const int nodes = 100, rounds = 190; // of 10 s: one half hour and a bit
        var time = new ShiftedTime();
        await using var host = await StartAsync(time);
        var history = host.Services.GetRequiredService<NodeHistory>();
        var ids = new int[nodes];
        for (var i = 0; i < nodes; i++)
            ids[i] = await AddAsync(host);
        var random = new Random(11);
        var empty = await PagesAsync(host);
        var begin = HalfHour(time.GetUtcNow());
        for (var round = 0; round < rounds; round++)
            await history.StoreAsync(begin.AddSeconds(10 * round), [.. ids.Select(id => (id, Busy(random)))], Ct);
        var perSample = (await PagesAsync(host) - empty) / (double)(nodes * rounds);

        // means fill their own table as samples do, an entry a node at a time
        await using (var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct))
            await db.NodeSamples.ExecuteDeleteAsync(Ct);
        empty = await PagesAsync(host);
        for (var round = 0; round < rounds; round++)
        {
            await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
            db.NodeSummaries.AddRange(ids.Select(id => new NodeSummary { Key = StoredFigures.KeyOf(id, begin.AddMinutes(30 * round)), Figures = Busy(random).ToBytes() }));
            await db.SaveChangesAsync(Ct);
        }
        var perSummary = (await PagesAsync(host) - empty) / (double)(nodes * rounds);

        var samples = nodes * (int)(NodeHistory.Whole / TimeSpan.FromSeconds(10));
        var summaries = nodes * (int)((s_year - NodeHistory.Whole) / NodeHistory.Span);
        var year = (samples * perSample) + (summaries * perSummary);
        TestContext.Current.TestOutputHelper!.WriteLine(
            $"{samples} samples of {perSample:0} bytes and {summaries} means of {perSummary:0} bytes: {year / 1e6:0} MB");
        year.ShouldBeLessThan(1e9);
        perSample.ShouldBeInRange(50, 300);
    }

    private static NodeFigures Busy(Random random) => new()
    {
        CpuPercent = random.NextDouble() * 100,
        MemoryPercent = random.NextDouble() * 100,
        DiskTotalBytes = 15.36e12,
        DiskFreeBytes = random.NextDouble() * 15e12,
        HfCacheBytes = random.NextDouble() * 5e12,
        Gpus = [.. Enumerable.Range(0, 8).Select(index => new GpuFigures(index)
        {
            Utilization = random.Next(101),
            MemoryUsedMb = random.Next(81_559),
            MemoryTotalMb = 81_559,
            TemperatureCelsius = random.Next(30, 90),
            PowerWatts = random.Next(70, 700),
        })],
    };

    private static NodeFigures Figures(int i) => new() { CpuPercent = i, Gpus = [new(0) { MemoryUsedMb = 1000 * i }] };

    private static DateTimeOffset HalfHour(DateTimeOffset at) => new(at.UtcTicks - (at.UtcTicks % TimeSpan.FromMinutes(30).Ticks), TimeSpan.Zero);

    private static Task<ControlPlane> StartAsync(ShiftedTime time) => ControlPlane.StartAsync(configure: services =>
    {
        ScriptedNode.WithoutLocalNode(services);
        services.AddSingleton<TimeProvider>(time);
    });

    private static async Task<int> AddAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        var row = new Node { Uid = Guid.NewGuid().ToString("N"), Hostname = "figures", IpAddress = "127.0.0.1" };
        db.Nodes.Add(row);
        await db.SaveChangesAsync(Ct);
        return row.Id;
    }

    private static async Task<double[]> CpuAsync(ControlPlane host, int node, string query) =>
        [.. (await host.Client.JsonAsync($"/api/nodes/{node}/metrics/history{query}")).GetProperty("points").EnumerateArray().Select(point => point.GetProperty("cpu_percent").GetDouble())];

    private static async Task<(int Samples, int Summaries)> CountAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return (await db.NodeSamples.CountAsync(Ct), await db.NodeSummaries.CountAsync(Ct));
    }

    /// <summary>Bytes of the pages in use.</summary>
    private static async Task<long> PagesAsync(ControlPlane host)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return await db.Database.SqlQueryRaw<long>(
            "SELECT (page_count - freelist_count) * page_size AS Value FROM pragma_page_count, pragma_freelist_count, pragma_page_size").SingleAsync(Ct);
    }
}
