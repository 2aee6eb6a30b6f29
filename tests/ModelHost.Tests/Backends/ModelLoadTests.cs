using System.Text.Json;
using ModelHost.Agent;
using ModelHost.Agent.Backends;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Protocol.Backend;

namespace ModelHost.Tests.Backends;

/// <summary>What a gRPC backend is asked to load.</summary>
public sealed class ModelLoadTests
{
    private static readonly NodeOptions s_options = new() { ModelFolders = "/srv/models,/srv/models/big" };

    [Theory]
    [InlineData("llama-cpp", "tiny.gguf", "tiny.gguf", "/data/models/tiny.gguf", "/data/models")]
    [InlineData("llama-cpp", "/srv/models/a/tiny.gguf", "a/tiny.gguf", "/srv/models/a/tiny.gguf", "/srv/models")]
    [InlineData("llama-cpp", "/srv/models/big/huge", "huge", "/srv/models/big/huge", "/srv/models/big")]
    [InlineData("llama-cpp", "/srv/models/big", "big", "/srv/models/big", "/srv/models")]
    [InlineData("local-store", "notes", "store://notes", "", "/data/models")]
    public void A_model_is_a_name_and_a_file_in_a_folder(string backend, string model, string name, string file, string folder)
    {
        var load = Load(backend, model, "{}");

        (load.Model, load.ModelFile, load.ModelPath).ShouldBe((name, file, folder));
    }

    [Fact]
    public void What_is_not_said_is_as_LocalAI_has_it()
    {
        var load = Load("llama-cpp", "tiny", "{}");

        (load.ContextSize, load.NBatch, load.NGPULayers, load.MMap, load.FlashAttention, load.CUDA).ShouldBe((4096, 512, 99_999_999, true, "auto", false));
        (load.Threads, load.GPUMemoryUtilization).ShouldBe((Environment.ProcessorCount, 0.5f));
    }

    [Theory]
    [InlineData("""{"context_size": 8192}""", "ContextSize", "8192")]
    [InlineData("""{"contextSize": 8192}""", "ContextSize", "8192")]
    [InlineData("""{"context-size": 8192}""", "ContextSize", "8192")]
    [InlineData("""{"max_model_len": 2048}""", "ContextSize", "2048")]
    [InlineData("""{"gpu_layers": 0}""", "NGPULayers", "0")]
    [InlineData("""{"NGPULayers": 5}""", "NGPULayers", "5")]
    [InlineData("""{"mmlock": true}""", "MLock", "True")]
    [InlineData("""{"main_gpu": 1}""", "MainGPU", "1")]
    [InlineData("""{"flash_attention": true}""", "FlashAttention", "true")]
    [InlineData("""{"rope_freq_base": 1e6}""", "RopeFreqBase", "1000000")]
    [InlineData("""{"mmproj": "eyes.gguf"}""", "MMProj", "/data/models/eyes.gguf")]
    [InlineData("""{"mmproj": null}""", "MMProj", "")]
    [InlineData("""{"served_model_name": "x", "quantization": "awq"}""", "Quantization", "awq")]
    public void Options_go_by_the_names_of_model_files_or_of_the_fields(string engineArgs, string field, string value)
    {
        ModelLoad.Check(BackendCatalogue.Find("llama-cpp")!, Args(engineArgs)).ShouldBeNull();

        FormattableString.Invariant($"{ModelOptions.Descriptor.FindFieldByName(field).Accessor.GetValue(Load("llama-cpp", "tiny", engineArgs))}").ShouldBe(value);
    }

    [Theory]
    [InlineData("""{"nothing": 1}""")]
    [InlineData("""{"model": "x"}""")]
    [InlineData("""{"ModelFile": "/etc/passwd"}""")]
    [InlineData("""{"proxy": {"api_key_file": "/etc/shadow"}}""")]
    [InlineData("""{"gpu_memory_utilization": 1}""")]
    [InlineData("""{"context_size": 1.5}""")]
    [InlineData("""{"mmap": "yes"}""")]
    [InlineData("""{"rope_freq_base": 1e300}""")]
    [InlineData("""{"options": {"a": 1}}""")]
    [InlineData("""{"options": [1, null]}""")]
    [InlineData("""{"lora_adapters": ["ok", "a/../../b"]}""")]
    public void What_no_field_takes_is_a_fault_of_engine_args(string engineArgs) =>
        ModelLoad.Check(BackendCatalogue.Find("llama-cpp")!, Args(engineArgs)).ShouldNotBeNull().Field.ShouldBe("engine_args");

    [Fact]
    public void Paths_among_the_options_are_found()
    {
        var spec = Spec("llama-cpp", "tiny", """{"draft_model": "/srv/models/d", "loraAdapters": ["/srv/a", "b"], "options": ["/no/path"], "mmproj": "c"}""");

        ModelLoad.PathsOf(spec).ShouldBe([("draft_model", "/srv/models/d"), ("loraAdapters", "/srv/a")]);
    }

    private static ModelOptions Load(string backend, string model, string engineArgs) =>
        new ModelLoad(s_options, "/data/models").Options(BackendCatalogue.Find(backend)!, Spec(backend, model, engineArgs));

    private static LaunchSpec Spec(string backend, string model, string engineArgs) =>
        new() { Backend = backend, ModelName = model, Owner = "tests", GpuMemoryFraction = 0.5, EngineArgs = Args(engineArgs) };

    private static Dictionary<string, JsonElement> Args(string json) => JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!;
}
