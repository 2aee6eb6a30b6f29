using System.Diagnostics.Metrics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text.RegularExpressions;
using ModelHost.Observability;
using ModelHost.TestKit;
using OpenTelemetry;
using OpenTelemetry.Metrics;

namespace ModelHost.Tests.Observability;

public sealed partial class MetricsTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("modelhost.gateway.request.duration", "s", "histogram", "modelhost_gateway_request_duration_seconds")]
    [InlineData("hw.gpu.memory.usage", "By", "gauge", "hw_gpu_memory_usage_bytes")]
    [InlineData("hw.gpu.utilization", "1", "gauge", "hw_gpu_utilization_ratio")]
    [InlineData("requests", "1", "counter", "requests_total")]
    [InlineData("requests_total", "{request}", "counter", "requests_total")]
    [InlineData("uptime.seconds", "s", "gauge", "uptime_seconds")]
    [InlineData("9-lives", null, "gauge", "_9_lives")]
    [InlineData("größe", "", "gauge", "gr__e")]
    public void An_instrument_has_its_name_on_the_page(string instrument, string? unit, string kind, string name) => PrometheusText.Name(instrument, unit, kind).ShouldBe(name);

    [Fact]
    public void Samples_are_escaped_and_histograms_cumulative()
    {
        var name = $"test.{Guid.NewGuid():N}";
        using var meter = new Meter(name);
        using var text = new PrometheusText();
        using var reader = new BaseExportingMetricReader(text) { TemporalityPreference = MetricReaderTemporalityPreference.Cumulative };
        using var provider = Sdk.CreateMeterProviderBuilder().AddMeter(name).AddReader(reader).Build();
        var times = meter.CreateHistogram<double>("wait.time", "s", "How \\ long\nit took.", advice: new() { HistogramBucketBoundaries = [0.5, 2] });
        times.Record(0.1, new KeyValuePair<string, object?>("who.asked", "a \"b\" \\ c\nd"));
        times.Record(1, new KeyValuePair<string, object?>("who.asked", "a \"b\" \\ c\nd"));
        times.Record(9, new KeyValuePair<string, object?>("who.asked", "a \"b\" \\ c\nd"));
        meter.CreateObservableGauge("odd.values", () => new Measurement<double>[] { new(double.NaN, new KeyValuePair<string, object?>("v", "nan")), new(double.PositiveInfinity, new KeyValuePair<string, object?>("v", "inf")) });

        reader.Collect();

        text.Page.ShouldBe("""
            # HELP wait_time_seconds How \\ long\nit took.
            # TYPE wait_time_seconds histogram
            wait_time_seconds_bucket{who_asked="a \"b\" \\ c\nd",le="0.5"} 1
            wait_time_seconds_bucket{who_asked="a \"b\" \\ c\nd",le="2"} 2
            wait_time_seconds_bucket{who_asked="a \"b\" \\ c\nd",le="+Inf"} 3
            wait_time_seconds_sum{who_asked="a \"b\" \\ c\nd"} 10.1
            wait_time_seconds_count{who_asked="a \"b\" \\ c\nd"} 3
            # HELP odd_values odd.values
            # TYPE odd_values gauge
            odd_values{v="nan"} NaN
            odd_values{v="inf"} +Inf

            """);
    }

    [Fact]
    public async Task The_page_of_a_running_host_parses_line_by_line()
    {
        using var node = new TestNode();
        // a process of its own: meters of other hosts in this process would be on the page too
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        using var client = new HttpClient { BaseAddress = host.Url };
        await client.NodeAsync("process");
        using var asked = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("a model that nobody knows"), Ct);

        // a request is counted when all is done, and its answer is here a moment before
        await Deadline.UntilAsync(
            () => client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct), text => text.Contains("modelhost_gateway_request_duration_seconds_count{model=\"_other\",", StringComparison.Ordinal), what: "the request to be counted");
        var answer = await client.GetAsync(new Uri("/metrics", UriKind.Relative), Ct);
        var page = await answer.Content.ReadAsStringAsync(Ct);
        await host.StopAsync();

        answer.Content.Headers.ContentType!.ToString().ShouldBe("text/plain; version=0.0.4; charset=utf-8");
        page.ShouldEndWith("\n");
        var lines = page.Split('\n')[..^1];
        lines.Where(line => line.StartsWith("# HELP ", StringComparison.Ordinal)).Select(line => line.Split(' ')[2]).ShouldBeUnique();
        lines.Where(line => line.StartsWith("# TYPE ", StringComparison.Ordinal)).Select(line => line.Split(' ')[2]).ShouldBeUnique();
        lines.ShouldAllBe(line => Comment().IsMatch(line) || Sample().IsMatch(line));
        lines.Where(line => line[0] != '#').Select(line => line[..line.LastIndexOf(' ')]).ShouldBeUnique();
        lines.Where(line => line[0] != '#').ShouldAllBe(line => double.IsFinite(double.Parse(line.Split(' ').Last(), CultureInfo.InvariantCulture)));
        foreach (var status in (string[])["stopped", "starting", "loading", "running", "paused_ram", "stopping", "error", "expired", "unreachable"])
            lines.ShouldContain($"modelhost_deployments{{status=\"{status}\"}} 0");
        lines.ShouldContain("modelhost_nodes{status=\"online\"} 1");
        lines.ShouldContain("modelhost_gateway_request_duration_seconds_count{model=\"_other\",route=\"/v1/chat/completions\",status=\"404\"} 1");
        lines.ShouldContain("modelhost_gateway_request_duration_seconds_bucket{model=\"_other\",route=\"/v1/chat/completions\",status=\"404\",le=\"+Inf\"} 1");
        lines.ShouldContain(line => line.StartsWith("process_cpu_time_seconds_total ", StringComparison.Ordinal));
        lines.ShouldContain(line => line.StartsWith("process_memory_usage_bytes ", StringComparison.Ordinal));
        page.ShouldNotContain("nobody");
    }

    [GeneratedRegex(@"\A# (HELP [a-zA-Z_:][a-zA-Z0-9_:]* .+|TYPE [a-zA-Z_:][a-zA-Z0-9_:]* (counter|gauge|histogram))\z")]
    private static partial Regex Comment();

    [GeneratedRegex("""\A[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="([^"\\]|\\["\\n])*"(,[a-zA-Z_][a-zA-Z0-9_]*="([^"\\]|\\["\\n])*")*\})? [^ ]+\z""")]
    private static partial Regex Sample();
}
