using System.Text.Json;
using ModelHost.Core.Deployments;

namespace ModelHost.Tests.Deployments;

public sealed class LaunchSpecTests
{
    [Fact]
    public void Written_and_read_again_it_is_the_same()
    {
        var spec = new LaunchSpec
        {
            DeploymentId = 7,
            Backend = "simulator",
            Runtime = "process",
            ModelName = "org/model",
            Port = 8101,
            GpuMemoryFraction = 0.1 + 0.2,
            GpuIds = [0, 3],
            TensorParallelSize = 2,
            ExtraArgs = ["--enforce-eager", "a \"quoted\" word\nand a line"],
            EnvVarKeys = ["HF_TOKEN"],
            EngineVersion = "0.9.1",
            EngineArgs = Arguments("""{"max_model_len": 4096, "Odd-Name": {"a": [1, null, "x"]}, "served_model_name": "chat", "seed": 1.50}"""),
            ExtraPackages = ["peft>=0.1", "a-1-py3-none-any.whl"],
            LoraModules = [new("sql", "org/sql-lora")],
            MaxFailedRestarts = 3,
            Owner = "team ü",
            DurationSeconds = 60,
            Pinned = true,
        };

        var json = spec.ToJson();
        var read = LaunchSpec.FromJson(json).ShouldNotBeNull();

        read.ToJson().ShouldBe(json);
        json.ShouldNotContain("\n");
        (read with
        {
            GpuIds = spec.GpuIds,
            ExtraArgs = spec.ExtraArgs,
            EnvVarKeys = spec.EnvVarKeys,
            EngineArgs = spec.EngineArgs,
            ExtraPackages = spec.ExtraPackages,
            LoraModules = spec.LoraModules,
        }).ShouldBe(spec);
        read.ExtraPackages.ShouldBe(spec.ExtraPackages);
        read.GpuIds.ShouldBe(spec.GpuIds);
        read.ExtraArgs.ShouldBe(spec.ExtraArgs);
        read.EnvVarKeys.ShouldBe(spec.EnvVarKeys);
        read.LoraModules.ShouldBe(spec.LoraModules);
        JsonSerializer.Serialize(read.EngineArgs).ShouldBe(JsonSerializer.Serialize(spec.EngineArgs));
        read.PublicName.ShouldBe("chat");
    }

    [Fact]
    public void The_smallest_record_is_read_with_its_defaults()
    {
        var spec = LaunchSpec.FromJson("""{"version":1,"model_name":"org/model","owner":"a","field_of_a_patch_release":1}""").ShouldNotBeNull();

        spec.PublicName.ShouldBe("org/model");
        spec.GpuIds.ShouldBeEmpty();
        spec.TensorParallelSize.ShouldBeNull();
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("{")]
    [InlineData("nonsense")]
    [InlineData("""{"version":1,"model_name":"org/model"}""")]
    [InlineData("""{"version":2,"model_name":"org/model","owner":"a"}""")]
    [InlineData("""{"version":0,"model_name":"org/model","owner":"a"}""")]
    [InlineData("""{"version":"1","model_name":"org/model","owner":"a"}""")]
    [InlineData("""{"version":1,"model_name":null,"owner":"a"}""")]
    [InlineData("""{"version":1,"model_name":"org/model","owner":"a","extra_args":null}""")]
    [InlineData("""{"version":1,"model_name":"org/model","owner":"a","gpu_ids":null}""")]
    public void What_is_no_record_of_a_known_version_is_null(string? json) => LaunchSpec.FromJson(json).ShouldBeNull();

    [Theory]
    [InlineData("""{"served_model_name": "chat"}""", "chat")]
    [InlineData("""{"served_model_name": ""}""", "org/model")]
    [InlineData("""{"served_model_name": null}""", "org/model")]
    [InlineData("{}", "org/model")]
    public void The_public_name_is_the_served_name_else_the_models(string arguments, string name) =>
        new LaunchSpec { ModelName = "org/model", Owner = "a", EngineArgs = Arguments(arguments) }.PublicName.ShouldBe(name);

    private static Dictionary<string, JsonElement> Arguments(string json) => JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!;
}
