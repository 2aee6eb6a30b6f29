using System.Runtime.CompilerServices;
using System.Text.Json;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;

namespace ModelHost.Tests.Backends;

/// <summary>Rendered command lines beside this file, one argument a line. <c>MODELHOST_WRITE_GOLDEN=1</c> writes them anew; the diff is the review.</summary>
public sealed class EngineCommandLineTests
{
    private static readonly LaunchSpec Plain = new() { ModelName = "Qwen/Qwen3-8B", Port = 8101, GpuMemoryFraction = 0.9, Owner = "tests" };

    [Fact]
    public void A_plain_deployment() => Matches("plain.txt", Plain);

    [Fact]
    public void A_deployment_with_everything() => Matches("everything.txt", Plain with
    {
        GpuMemoryFraction = 0.45,
        GpuIds = [0, 2],
        TensorParallelSize = 2,
        EngineArgs = Arguments("""
            {"max_model_len": 32768, "served_model_name": "chat", "enforce_eager": true, "dtype": "bfloat16", "seed": -1, "rope_theta": 1.50,
             "hf_overrides": {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "chat_template": "{{ a }} \"quoted\" $HOME; rm -rf /", "tool_call_parser": "--odd",
             "allowed_origins": ["https://a.example", "*"], "disable_sleep_mode": true, "limit-mm-per-prompt": {"image": 2}, "counts": [1, -2]}
            """),
        LoraModules = [new("sql", "org/sql-lora"), new("poems", "org/poems-lora")],
        ExtraArgs = ["--max-num-seqs", "7", "-O3"],
    });

    [Fact]
    public void Switches_that_are_off_and_values_that_are_none() => Matches("switches.txt", Plain with
    {
        EngineArgs = Arguments("""
            {"enforce_eager": false, "trust-remote-code": false, "enable_prefix_caching": false, "async_scheduling": false, "enable_chunked_prefill": true,
             "quantization": null, "revision": "", "stop": []}
            """),
    });

    [Fact]
    public void Adapters_and_a_model_on_the_node() => Matches("adapters.txt", Plain with
    {
        ModelName = "/srv/models/qwen3-8b",
        EngineArgs = Arguments("""{"served_model_name": "chat", "max_loras": 2, "max_lora_rank": 64, "max_cpu_loras": 4}"""),
        LoraModules = [new("sql", "/srv/adapters/sql"), new("it's-\"quoted\"-ü", "org/poems-lora")],
        ExtraArgs = ["--shutdown-timeout", "30"],
    });

    [Fact]
    public void A_simulated_engine_gets_the_same_arguments() =>
        EngineCommandLine.Arguments(BackendCatalogue.BuiltIn["simulator"], Plain, 41000).ShouldBe(EngineCommandLine.Arguments(BackendCatalogue.BuiltIn["vllm"], Plain, 41000));

    [Fact]
    public void A_name_is_put_in_once_and_never_read_as_a_placeholder()
    {
        var arguments = EngineCommandLine.Arguments(BackendCatalogue.BuiltIn["vllm"], Plain with { ModelName = "{engine_port}" }, 41000);

        arguments.ShouldContain("{engine_port}");
        arguments.Count(argument => argument == "41000").ShouldBe(1);
    }

    private static void Matches(string file, LaunchSpec spec, [CallerFilePath] string here = "")
    {
        var path = Path.Combine(Path.GetDirectoryName(here)!, file);
        var rendered = string.Concat(EngineCommandLine.Arguments(BackendCatalogue.BuiltIn["vllm"], spec, 41000).Select(argument => argument + "\n"));
        if (Environment.GetEnvironmentVariable("MODELHOST_WRITE_GOLDEN") == "1")
            File.WriteAllText(path, rendered);

        rendered.ShouldBe(File.ReadAllText(path));
    }

    private static Dictionary<string, JsonElement> Arguments(string json) => JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!;
}
