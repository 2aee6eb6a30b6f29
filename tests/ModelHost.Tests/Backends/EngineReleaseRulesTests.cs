using System.Text.Json;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;

namespace ModelHost.Tests.Backends;

/// <summary>Which release of vLLM has which option: the facts are those of its release notes and issues.</summary>
public sealed class EngineReleaseRulesTests
{
    private static readonly BackendRecipe Vllm = BackendCatalogue.BuiltIn["vllm"];

    [Theory]
    [InlineData("0.17.1", "--swap-space", null)]
    [InlineData("0.18.0", "--swap-space", "from 0.18.0 on")]
    [InlineData("0.29.0", "--swap-space", "kv-offloading-size")]
    [InlineData("0.17.1", "--shutdown-timeout", "before 0.18.0")]
    [InlineData("0.9.1", "--shutdown-timeout", "before 0.18.0")]
    [InlineData("0.18.0", "--shutdown-timeout", null)]
    [InlineData("0.28.0", "--max-num-queued-reqs", "before 0.29.0")]
    [InlineData("0.28.0", "--max-num-queued-tokens", "before 0.29.0")]
    [InlineData("0.29.0", "--max-num-queued-reqs", null)]
    [InlineData("0.10.0", "--disable-log-requests", null)]
    [InlineData("0.17.0", "--disable-log-requests", "enable-log-requests")]
    [InlineData("0.28.0", "--enable-log-requests", null)]
    // deprecated since 0.13, and nobody knows until when it is taken
    [InlineData("0.28.0", "--task", null)]
    [InlineData("0.28.0", "--an-option-of-tomorrow", null)]
    public void An_option_is_refused_where_the_release_does_not_have_it(string version, string option, string? reason)
    {
        var failure = Extra(version, option, "4");

        if (reason is null)
            failure.ShouldBeNull();
        else
        {
            failure.ShouldNotBeNull();
            (failure.Kind, failure.Code, failure.Field).ShouldBe((FailureKind.Invalid, "deployment.option_unsupported", "extra_args"));
            failure.Detail.ShouldStartWith($"vllm {version} has no option {option}");
            failure.Detail.ShouldContain(reason);
        }
    }

    [Theory]
    [InlineData("--swap-space")]
    [InlineData("--swap_space")]
    [InlineData("--swap-space=4")]
    [InlineData("--swap_space=4")]
    [InlineData("--swap-sp")]
    [InlineData("--swa=4")]
    [InlineData("--swap-space.x")]
    public void Every_spelling_is_found(string spelling) => Extra("0.28.0", "--enforce-eager", spelling, "4").ShouldNotBeNull().Field.ShouldBe("extra_args");

    [Fact]
    public void A_switch_is_found_with_its_twin_and_an_abbreviation_stands_for_what_the_release_has()
    {
        Extra("0.28.0", "--no-disable-log-requests").ShouldNotBeNull();
        Extra("0.28.0", "--no_disable_log_req").ShouldNotBeNull();
        Extra("0.28.0", "--disable-log").ShouldBeNull(); // disable-log-stats
        Extra("0.28.0", "--max-num").ShouldBeNull();
        Extra("0.28.0", "--max-num-queued").ShouldNotBeNull();
    }

    [Theory]
    [InlineData("v0.18.0")]
    [InlineData("0.18")]
    [InlineData("0.18.0rc1")]
    [InlineData("0.18.0-cu129")]
    [InlineData("v0.28.0-x86_64")]
    [InlineData("0.18.1.post1")]
    [InlineData("1.0.0")]
    public void Versions_are_read_in_all_their_forms(string version) => Extra(version, "--swap-space", "4").ShouldNotBeNull();

    [Theory]
    [InlineData("")]
    [InlineData("latest")]
    [InlineData("nightly")]
    [InlineData("0123456789012345678901234567890123456789")]
    [InlineData("our-build")]
    [InlineData("25.09-py3")]
    [InlineData("v0.18.0-with-our-patches")]
    public void Where_no_release_is_to_be_seen_the_engine_decides(string version)
    {
        Extra(version, "--swap-space", "4", "--shutdown-timeout", "5").ShouldBeNull();
        EngineImage.ReleaseOf(version).ShouldBeNull();
    }

    [Theory]
    [InlineData("""{"swap_space": 4}""", "engine_args.swap_space")]
    [InlineData("""{"seed": 1, "swap-space": 4}""", "engine_args.swap-space")]
    [InlineData("""{"swap_sp": "4"}""", "engine_args.swap_sp")]
    [InlineData("""{"disable_log_requests": true}""", "engine_args.disable_log_requests")]
    [InlineData("""{"swap_space": null}""", null)]
    [InlineData("""{"swap_space": ""}""", null)]
    [InlineData("""{"shutdown_timeout": 5, "served_model_name": "swap-space"}""", null)]
    public void An_engine_option_is_refused_under_its_own_name(string arguments, string? field) =>
        Options("0.28.0", arguments)?.Field.ShouldBe(field);

    [Theory]
    [InlineData("0.28.0", "64", true)]
    [InlineData("0.28.0", "7", false)]
    [InlineData("0.28.0", "1024", false)]
    [InlineData("0.30.0", "1024", true)]
    [InlineData("nightly", "1024", true)]
    public void The_rank_of_adapters_is_one_that_the_release_has(string version, string rank, bool possible)
    {
        (Options(version, $$"""{"max_lora_rank": {{rank}}}""") is null).ShouldBe(possible);
        (Extra(version, "--max_lora_rank", rank) is null).ShouldBe(possible);
        (Extra(version, $"--max-lora-rank={rank}") is null).ShouldBe(possible);
    }

    [Fact]
    public void The_map_is_whole()
    {
        string[] known = [.. Vllm.Options.Switches, .. Vllm.Options.Values, .. Vllm.Options.Json, .. Vllm.Options.Lists, .. Vllm.Options.Optional];

        known.Distinct().Count().ShouldBe(known.Length);
        Vllm.ReleaseOptions.Select(rule => rule.Name).ShouldBeSubsetOf(known);
        Vllm.DeniedOptions.ShouldBeSubsetOf(known);
        Vllm.Choices.Keys.ShouldBeSubsetOf(known);
        Vllm.ReleaseOptions.ShouldAllBe(rule => rule.Instead.EndsWith('.') && (rule.Since.Length > 0 || rule.Gone.Length > 0)
            && (rule.Since.Length == 0 || EngineImage.ReleaseOf(rule.Since) != null) && (rule.Gone.Length == 0 || EngineImage.ReleaseOf(rule.Gone) != null));
        EngineImage.ReleaseOf(Vllm.KnownRelease).ShouldBe(new Version(0, 29, 0));
    }

    private static Failure? Extra(string version, params string[] arguments) =>
        EngineReleaseRules.Check(Vllm, version, new Dictionary<string, JsonElement>(), arguments);

    private static Failure? Options(string version, string json) =>
        EngineReleaseRules.Check(Vllm, version, JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!, []);
}
