using ModelHost.Core.Backends;
using ModelHost.Core.Engines;

namespace ModelHost.Tests.Engines;

public sealed class EngineCountersTests
{
    private static readonly MetricNames Names = BackendCatalogue.BuiltIn["vllm"].Metrics;

    [Fact]
    public void Counters_are_summed_over_label_sets()
    {
        var counters = EngineCounters.Parse(Names, """
            # HELP vllm:prompt_tokens_total Number of prefill tokens processed.
            # TYPE vllm:prompt_tokens_total counter
            vllm:prompt_tokens_total{engine="0",model_name="org/model"} 1200.0
            vllm:prompt_tokens_total{engine="1",model_name="org/model"} 34.0
            vllm:prompt_tokens_created{engine="0",model_name="org/model"} 1.77e+09
            vllm:generation_tokens_total{engine="0",model_name="org/model"} 5e3
            vllm:request_success_total{engine="0",finished_reason="stop",model_name="org/model"} 7.0
            vllm:request_success_total{engine="0",finished_reason="abort",model_name="org/model"} 2.0
            vllm:num_requests_running{engine="0",model_name="org/model"} 3.0
            vllm:num_requests_waiting{engine="0",model_name="org/model"} 0.0
            vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
            vllm:kv_cache_usage_perc{engine="0"} 0.25
            vllm:kv_cache_usage_perc{engine="1"} 0.75
            vllm:gpu_cache_usage_perc{engine="0"} 0.9
            vllm:request_prefill_time_seconds_sum{engine="0"} 1.5
            vllm:request_prefill_time_seconds_count{engine="0"} 7.0
            vllm:time_to_first_token_seconds_sum{engine="0"} 99.0
            """);

        counters.ShouldBe(new EngineCounters
        {
            PromptTokens = 1234,
            GenerationTokens = 5000,
            Requests = 9,
            RequestsRunning = 3,
            RequestsWaiting = 0,
            KvCacheUsage = 0.5,
            PrefillSeconds = 1.5,
            DecodeSeconds = null,
        });
    }

    [Fact]
    public void The_second_name_counts_where_the_engine_has_no_first() =>
        EngineCounters.Parse(Names, "vllm:prompt_tokens_total 1\nvllm:time_to_first_token_seconds_sum 2.5\n")!.PrefillSeconds.ShouldBe(2.5);

    [Theory]
    [InlineData("vllm:prompt_tokens_total 5", 5)]
    [InlineData("vllm:prompt_tokens_total 5 1772366400000", 5)]
    [InlineData("vllm:prompt_tokens_total{} 5", 5)]
    [InlineData("vllm:prompt_tokens_total{a=\"b\"} 5 1772366400000", 5)]
    [InlineData("vllm:prompt_tokens_total{a=\"with } brace\",b=\"with { too\"} 5", 5)]
    [InlineData("vllm:prompt_tokens_total{a=\"with blank\"} 5", 5)]
    [InlineData("vllm:prompt_tokens_total{a=\"with \\\" quote, and } brace\"} 5", 5)]
    [InlineData("vllm:prompt_tokens_total{a=\"} 7\"} 5", 5)]
    [InlineData("vllm:prompt_tokens_total{a=\"b\"}5", 5)]
    [InlineData("vllm:prompt_tokens_total{a=\"b\"} 5\r", 5)]
    [InlineData("vllm:prompt_tokens_total\t5", 5)]
    public void A_sample_is_read_in_every_form(string line, double value) => EngineCounters.Parse(Names, line)!.PromptTokens.ShouldBe(value);

    [Theory]
    [InlineData("")]
    [InlineData("# TYPE vllm:prompt_tokens_total counter")]
    [InlineData("#vllm:prompt_tokens_total 5")]
    [InlineData("vllm:prompt_tokens_total NaN")]
    [InlineData("vllm:prompt_tokens_total +Inf")]
    [InlineData("vllm:prompt_tokens_total")]
    [InlineData("vllm:prompt_tokens_total{a=\"b\"}")]
    [InlineData("vllm:prompt_tokens_total{a=\"b")]
    [InlineData("vllm:prompt_tokens_total five")]
    [InlineData("vllm:prompt_tokens_total_more 5")]
    [InlineData("{\"error\":\"no metrics\"}")]
    [InlineData("vllm:num_requests_running 5")]
    public void A_page_without_counters_gives_none(string page) => EngineCounters.Parse(Names, page).ShouldBeNull();

    [Fact]
    public void A_line_that_is_cut_off_does_not_spoil_the_others() =>
        EngineCounters.Parse(Names, "vllm:prompt_tokens_total 5\nvllm:prompt_tokens_total{a=\"\nvllm:generation_tokens_total{ 1")!.PromptTokens.ShouldBe(5);
}

public sealed class EngineRateMeterTests
{
    private readonly EngineRateMeter _meter = new();

    [Fact]
    public void The_first_reading_has_no_rates() => Next(100, 50, 1, 1, 1, at: 0).ShouldBe(new EngineRates(null, null, null, null));

    [Fact]
    public void Rates_leave_out_what_came_before_the_first_finished_request()
    {
        Next(1000, 0, 0, 10, 0, at: 0);
        Next(1100, 50, 1, 11, 1, at: 10);

        Next(1300, 250, 2, 12, 5, at: 20).ShouldBe(new EngineRates(200, 50, 20, 20));
    }

    [Fact]
    public void An_idle_interval_has_no_throughput_and_keeps_the_rates()
    {
        Next(0, 0, 1, 0, 0, at: 0);
        Next(100, 50, 2, 1, 5, at: 10);

        Next(100, 50, 2, 1, 5, at: 20).ShouldBe(new EngineRates(100, 10, null, null));
    }

    [Fact]
    public void A_counter_that_fell_begins_anew()
    {
        Next(1000, 1000, 10, 10, 10, at: 0);
        Next(2000, 2000, 20, 20, 20, at: 10);

        Next(30, 20, 1, 1, 1, at: 20).ShouldBe(new EngineRates(null, null, null, null));
        Next(130, 70, 2, 2, 3, at: 30).ShouldBe(new EngineRates(100, 25, 10, 5));
    }

    [Fact]
    public void Readings_at_one_moment_divide_by_nothing()
    {
        Next(0, 0, 1, 0, 0, at: 0);

        Next(100, 100, 2, 0, 0, at: 0).ShouldBe(new EngineRates(null, null, null, null));
    }

    [Fact]
    public void An_engine_without_a_metric_has_no_rate_of_it()
    {
        _meter.Next(new EngineCounters { Requests = 1, PromptTokens = 0 }, TimeSpan.Zero);

        _meter.Next(new EngineCounters { Requests = 2, PromptTokens = 100 }, TimeSpan.FromSeconds(10)).ShouldBe(new EngineRates(null, null, 10, null));
    }

    private EngineRates Next(double prompt, double generation, double requests, double prefill, double decode, double at) => _meter.Next(
        new EngineCounters { PromptTokens = prompt, GenerationTokens = generation, Requests = requests, PrefillSeconds = prefill, DecodeSeconds = decode },
        TimeSpan.FromSeconds(at));
}
