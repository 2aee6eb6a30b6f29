using ModelHost.Simulator.Flags;
using ModelHost.Simulator.Options;

namespace ModelHost.Tests.Simulator;

public sealed class FlagTests
{
    private static FlagValues Parse(IReadOnlyList<string> arguments) => FlagParser.Parse(arguments, new FlagTable(new Release(Release.Default)));

    [Theory]
    [InlineData("--swap-space 4", "unrecognized arguments: --swap-space 4")]
    [InlineData("--disable-log-requests", "unrecognized arguments: --disable-log-requests")]
    [InlineData("--task embed", "unrecognized arguments: --task embed")]
    [InlineData("serve", "unrecognized arguments: serve")]
    [InlineData("--port x", "argument --port: invalid int value: 'x'")]
    [InlineData("--port", "argument --port: expected one argument")]
    [InlineData("--port --host", "argument --port: expected one argument")]
    [InlineData("-tp", "argument --tensor-parallel-size/-tp: expected one argument")]
    [InlineData("--served-model-name", "argument --served-model-name: expected at least one argument")]
    [InlineData("--gpu-memory-utilization much", "argument --gpu-memory-utilization: invalid float value: 'much'")]
    [InlineData("--max-model-len 4x", "argument --max-model-len: invalid human_readable_int_or_auto value: '4x'")]
    [InlineData("--max-model-len 99999999999999999t", "argument --max-model-len: invalid human_readable_int_or_auto value: '99999999999999999t'")]
    [InlineData("--max-model-len 99999999999T", "argument --max-model-len: invalid human_readable_int_or_auto value: '99999999999T'")]
    [InlineData("--runner chat", "argument --runner: invalid choice: 'chat' (choose from 'auto', 'draft', 'generate', 'pooling')")]
    [InlineData("--max-lora-rank 7", "argument --max-lora-rank: invalid choice: 7 (choose from 1, 8, 16, 32, 64, 128, 256, 320, 512)")]
    [InlineData("--enforce-eager=true", "argument --enforce-eager/--no-enforce-eager: ignored explicit argument 'true'")]
    [InlineData("--max-num-", "ambiguous option: --max-num- could match --max-num-batched-tokens, --max-num-partial-prefills, --max-num-seqs")]
    [InlineData("--hf-overrides {", "argument --hf-overrides: Value { cannot be converted to <function loads>.")]
    public void Refused_command_lines_give_the_words_of_argparse(string line, string message) =>
        Should.Throw<UsageException>(() => Parse(["model", .. line.Split(' ')])).Message.ShouldBe(message);

    [Theory]
    [InlineData("4096", 4096)]
    [InlineData("1k", 1000)]
    [InlineData("1K", 1024)]
    [InlineData("25.6k", 25_600)]
    [InlineData("2M", 2_097_152)]
    [InlineData("-1", -1)]
    [InlineData("auto", -1)]
    public void Context_lengths_have_all_forms_of_vllm(string text, long length) =>
        Parse(["m", "--max-model-len", text]).Integer("max_model_len").ShouldBe(length);

    [Fact]
    public void Underscores_twins_equals_signs_and_abbreviations_are_accepted()
    {
        var flags = Parse(
            ["org/model", "--max_num_seqs=7", "--no-enable-prefix-caching", "--enforce-e", "--served-model-name", "a", "b", "--hf-token", "-pp=2"]);

        flags.ModelTag.ShouldBe("org/model");
        flags.Integer("max_num_seqs").ShouldBe(7);
        flags.Switch("enable_prefix_caching", otherwise: true).ShouldBeFalse();
        flags.Switch("enforce_eager").ShouldBeTrue();
        flags.List("served_model_name").ShouldBe(["a", "b"]);
        flags.Integer("pipeline_parallel_size").ShouldBe(2);
    }

    [Fact]
    public void Json_flags_take_members_with_a_dot() =>
        Parse(["--hf-overrides.rope_scaling", "x", "--compilation-config", "{\"level\":3}"]).Text("compilation_config").ShouldBe("{\"level\":3}");

    [Fact]
    public void A_configuration_file_gives_flags_that_the_command_line_overrides()
    {
        var file = Path.GetTempFileName();
        File.WriteAllText(file, "# served by the bench\nmodel: org/model\nport: 9000\nenforce-eager: true\nenable-lora: false\nserved_model_name:\n  - a\n  - 'b'\n");

        var flags = Parse(ConfigFile.Expand(["--config", file, "--port", "9001"]));
        File.Delete(file);

        flags.Text("model").ShouldBe("org/model");
        flags.Integer("port").ShouldBe(9001);
        flags.Switch("enforce_eager").ShouldBeTrue();
        flags.Switch("enable_lora").ShouldBeFalse();
        flags.List("served_model_name").ShouldBe(["a", "b"]);
    }

    [Fact]
    public void Every_flag_has_one_meaning() =>
        new FlagTable(new Release(Release.Default)).All.SelectMany(flag => flag.Names).ShouldBeUnique();

    [Fact]
    public void Secrets_are_masked_in_the_argument_line() =>
        Parse(["m", "--api-key", "hush", "--hf-token", "hush"]).ToString().ShouldBe("{'model_tag': 'm', 'api_key': '***', 'hf_token': '***'}");

    [Fact]
    public async Task A_refused_command_line_ends_with_usage_and_code_2()
    {
        var (code, output, error) = await RunningSimulator.RunAsync([], "m", "--swap-space", "4");

        code.ShouldBe(2);
        output.ShouldBeEmpty();
        error.ShouldBe("usage: vllm serve [model_tag] [options]\nvllm serve: error: unrecognized arguments: --swap-space 4\n");
    }

    [Theory]
    [InlineData("VLLM_SIM_TFTT_MS", "5", "unknown variable VLLM_SIM_TFTT_MS")]
    [InlineData("VLLM_SIM_ITL_MS", "-5", "VLLM_SIM_ITL_MS: '-5' is not a number")]
    [InlineData("VLLM_SIM_FAIL", "often", "VLLM_SIM_FAIL: 'often' is none of none, oom")]
    [InlineData("VLLM_SIM_GPU_DIR", "/nowhere", "VLLM_SIM_GPU_DIR: there is no gpus.csv in /nowhere")]
    [InlineData("VLLM_SIM_PHASE_NAP_SECONDS", "1", "unknown variable VLLM_SIM_PHASE_NAP_SECONDS")]
    public async Task A_wrong_knob_stops_the_start_by_name(string name, string value, string message)
    {
        var (code, _, error) = await RunningSimulator.RunAsync(new() { [name] = value }, "m");

        code.ShouldBe(2);
        error.ShouldContain(message);
    }
}
