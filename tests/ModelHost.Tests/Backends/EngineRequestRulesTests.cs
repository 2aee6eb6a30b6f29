using System.Text.Json;
using ModelHost.Core;
using ModelHost.Core.Backends;

namespace ModelHost.Tests.Backends;

public sealed class EngineRequestRulesTests
{
    private static readonly BackendRecipe Vllm = BackendCatalogue.BuiltIn["vllm"];

    public static TheoryData<string> DeniedOptions => [.. Vllm.DeniedOptions];

    [Fact]
    public void The_list_of_denied_options_has_what_is_ours()
    {
        string[] ours =
        [
            "host", "port", "uds", "api-key", "served-model-name", "gpu-memory-utilization", "tensor-parallel-size", "lora-modules", "enable-sleep-mode",
            "config", "middleware", "tool-parser-plugin", "reasoning-parser-plugin", "log-config-file", "allowed-local-media-path", "model",
        ];

        ours.ShouldBeSubsetOf(Vllm.DeniedOptions);
    }

    [Theory]
    [MemberData(nameof(DeniedOptions))]
    public void A_denied_option_is_refused_in_every_spelling(string option)
    {
        string[] spellings =
        [
            $"--{option}", $"--{option}=x", $"--{option}=", $"--{option.Replace('-', '_')}", $"--{option.Replace('-', '_')}=x", $"--{option[..^1]}",
            $"--{option[..^1]}=x", $"--{option}.key", $"--{option}.key=x", $"--{option.ToUpperInvariant()}", $"--no-{option}", $"--no_{option.Replace('-', '_')}",
            $"--no-{option[..^1]}",
        ];

        foreach (var spelling in spellings)
            Extra("--enforce-eager", spelling, "x").ShouldBeDenied("extra_args", spelling);
    }

    [Theory]
    [MemberData(nameof(DeniedOptions))]
    public void A_denied_option_is_refused_among_the_engine_options(string option)
    {
        foreach (var name in (string[])[option, option.Replace('-', '_'), option.ToUpperInvariant(), option[..^1], "no_" + option.Replace('-', '_')])
        {
            if (!Vllm.ControlOptions.Contains(name))
                Options($$"""{"{{name}}": "x"}""").ShouldBeDenied("engine_args", name);
        }
    }

    [Fact]
    public void An_option_whose_name_begins_a_denied_one_is_its_own()
    {
        Options("""{"reasoning_parser": "qwen3"}""").ShouldBeNull();
        Extra("--reasoning-parser", "qwen3").ShouldBeNull();
        Extra("--reasoning-parser-p", "x").ShouldBeDenied("extra_args", "--reasoning-parser-p");
    }

    [Theory]
    [InlineData("--")]
    [InlineData("--=x")]
    [InlineData("-tp")]
    [InlineData("-tp=2")]
    [InlineData("-tp2")]
    [InlineData("-t")]
    [InlineData("-t=2")]
    [InlineData("--tensor-parallel")]
    [InlineData("--m")]
    [InlineData("--h")]
    public void Further_spellings_are_refused(string argument) => Extra(argument, "2").ShouldBeDenied("extra_args", argument);

    [Theory]
    [InlineData("other-name")]
    [InlineData("evil=org/lora")]
    [InlineData("")]
    [InlineData("-1")]
    [InlineData("--max-model-len 4096")]
    public void An_argument_that_no_option_takes_is_refused(string argument)
    {
        foreach (var arguments in (string[][])[[argument, "--enforce-eager"], ["--enforce-eager", argument], ["--seed", "1", argument], ["-q=awq", argument]])
        {
            var failure = Extra(arguments).ShouldNotBeNull();

            (failure.Kind, failure.Code, failure.Field).ShouldBe((FailureKind.Invalid, "validation", "extra_args"));
        }
    }

    [Fact]
    public void What_is_the_engines_own_passes()
    {
        Extra().ShouldBeNull();
        Extra("--max-model-len", "4096", "--model-impl", "auto", "--config-format=hf", "-O3", "-q", "awq", "-pp=2", "--hf-overrides.x", "1", "--no-enable-prefix-caching",
            "--chat-template", "a template\nof {{ lines }}", "--enable-lora", "--host-allowlist").ShouldBeNull();
        Options("""
            {"max_model_len": 4096, "dtype": "auto", "enforce_eager": true, "seed": -1, "quantization": null, "max-num-seqs": 7, "served_model_name": "chat",
             "hf_overrides": {"a": "-x"}, "stop": ["a", "b", -1, true], "disable_sleep_mode": true, "chat_template": "--looks like an option"}
            """).ShouldBeNull();
        Variables(("HF_TOKEN", "hf_x"), ("VLLM_LOGGING_LEVEL", "DEBUG"), ("_x1", ""), ("NCCL_DEBUG", "INFO\nline")).ShouldBeNull();
    }

    [Theory]
    [InlineData("""{"lora_dtype": ["auto", "--api-key"]}""")]
    [InlineData("""{"lora_dtype": ["-tp=2"]}""")]
    [InlineData("""{"lora_dtype": [null]}""")]
    [InlineData("""{"lora_dtype": [["a"]]}""")]
    [InlineData("""{"lora_dtype": ["a\u0000"]}""")]
    [InlineData("""{"lora_dtype": "a\u0000b"}""")]
    [InlineData("""{"lora dtype": 1}""")]
    [InlineData("""{"-tp": 1}""")]
    [InlineData("""{"--seed": 1}""")]
    [InlineData("""{"seed=1": 1}""")]
    [InlineData("""{"hf_overrides.x": 1}""")]
    [InlineData("""{"": 1}""")]
    [InlineData("""{"sëed": 1}""")]
    [InlineData("""{"seed\n": 1}""")]
    [InlineData("""{"served_model_name": ["a", "b"]}""")]
    [InlineData("""{"served_model_name": 1}""")]
    [InlineData("""{"enforce_eager": "org/another-model"}""")]
    [InlineData("""{"enforce-eager": 1}""")]
    [InlineData("""{"no_enforce_eager": ["org/another-model"]}""")]
    [InlineData("""{"max_model_len": [4096, "org/another-model"]}""")]
    [InlineData("""{"max_model_len": true}""")]
    [InlineData("""{"max_model": false}""")]
    [InlineData("""{"hf_overrides": true}""")]
    [InlineData("""{"tokenizer": ["a", "org/another-model"]}""")]
    public void Engine_options_of_a_wrong_form_are_refused(string json)
    {
        var failure = Options(json).ShouldNotBeNull();

        (failure.Kind, failure.Field).ShouldBe((FailureKind.Invalid, "engine_args"));
        failure.Code.ShouldBe("validation");
    }

    [Fact]
    public void Sizes_are_bounded()
    {
        Extra([.. Enumerable.Repeat("--enforce-eager", 257)]).ShouldNotBeNull().Field.ShouldBe("extra_args");
        Extra("--x", new string('a', 16 * 1024 + 1)).ShouldNotBeNull().Field.ShouldBe("extra_args");
        Extra("--x", "a\u0007").ShouldNotBeNull().Field.ShouldBe("extra_args");
        Extra("--x", null!).ShouldNotBeNull().Field.ShouldBe("extra_args");
        Options($$"""{"a": "{{new string('a', 16 * 1024)}}"}""").ShouldNotBeNull().Field.ShouldBe("engine_args");
        Variables(("A", new string('a', 16 * 1024 + 1))).ShouldNotBeNull().Field.ShouldBe("env_vars");
    }

    [Theory]
    [InlineData("VLLM_API_KEY")]
    [InlineData("vllm_api_key")]
    [InlineData("VLLM_SERVER_DEV_MODE")]
    [InlineData("CUDA_VISIBLE_DEVICES")]
    [InlineData("NVIDIA_VISIBLE_DEVICES")]
    [InlineData("VLLM_PLUGINS")]
    public void Variables_that_are_ours_are_refused(string name) => Variables((name, "x")).ShouldBeDenied("env_vars", name);

    [Theory]
    [InlineData("")]
    [InlineData(null)]
    [InlineData("A B")]
    [InlineData("A=B")]
    [InlineData("1A")]
    [InlineData("A\n")]
    [InlineData("Ä")]
    public void Names_that_are_none_are_refused(string? name) => Variables((name!, "x")).ShouldNotBeNull().Field.ShouldBe("env_vars");

    [Theory]
    [InlineData(null)]
    [InlineData("a\0b")]
    public void Values_that_are_none_are_refused(string? value) => Variables(("A", value!)).ShouldNotBeNull().Field.ShouldBe("env_vars");

    [Theory]
    [InlineData("PATH")]
    [InlineData("LD_PRELOAD")]
    [InlineData("DOTNET_STARTUP_HOOKS")]
    [InlineData("vllm_sim_fail")]
    public void A_process_gets_only_variables_of_its_engine(string name) =>
        EngineRequestRules.Check(BackendCatalogue.BuiltIn["simulator"], new Dictionary<string, JsonElement>(), [], [new(name, "x")]).ShouldNotBeNull().Field.ShouldBe("env_vars");

    [Fact]
    public void What_is_refused_is_shown_bounded() =>
        Options($$"""{"{{new string('-', 500)}}": 1}""")!.Detail.Length.ShouldBeLessThan(120);

    private static Failure? Extra(params string[] arguments) => EngineRequestRules.Check(Vllm, new Dictionary<string, JsonElement>(), arguments, []);

    private static Failure? Options(string json) =>
        EngineRequestRules.Check(Vllm, JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!, [], []);

    private static Failure? Variables(params (string Name, string Value)[] variables) =>
        EngineRequestRules.Check(Vllm, new Dictionary<string, JsonElement>(), [], variables.Select(v => KeyValuePair.Create(v.Name, v.Value)));
}

internal static class Refusals
{
    public static void ShouldBeDenied(this Failure? failure, string field, string spelling)
    {
        failure.ShouldNotBeNull(spelling);
        (failure.Kind, failure.Code, failure.Field).ShouldBe((FailureKind.Invalid, "deployment.option_denied", field), spelling);
    }
}
