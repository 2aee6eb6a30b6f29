using System.Text.Json.Nodes;
using ModelHost.Core.Backends;
using ModelHost.Core.Galleries;
using ModelHost.Features.Galleries;
using ModelHost.Tests.Backends;

namespace ModelHost.Tests.Galleries;

/// <summary>What configurations of LocalAI's galleries say to the engines that serve their models.</summary>
public sealed class ModelEngineOptionsTests
{
    [Theory]
    [InlineData("""{"context_size":8192,"gpu_layers":99,"f16":true,"mmap":false,"threads":4,"batch":64}""", """{"context_size":8192,"gpu_layers":99,"f16":true,"mmap":false,"threads":4,"batch":64}""", "")]
    [InlineData("""{"parameters":{"model":"w.gguf","temperature":0.2,"top_k":40,"top_p":0.9,"max_tokens":64,"seed":7}}""", """{"temperature":0.2,"top_k":40,"top_p":0.9,"max_tokens":64,"seed":7}""", "")]
    [InlineData("""{"stopwords":["<|im_end|>"],"system_prompt":"Be kind.","options":["use_jinja:true"]}""", """{"stopwords":["<|im_end|>"],"system_prompt":"Be kind.","options":["use_jinja:true"]}""", "")]
    [InlineData("""{"template":{"use_tokenizer_template":true}}""", """{"use_tokenizer_template":true}""", "")]
    [InlineData("""{"template":{"use_tokenizer_template":false,"chat":"{{.Input}}","completion":""}}""", """{"use_tokenizer_template":false}""", "template.chat")]
    [InlineData("""{"mmproj":"eyes.gguf","draft_model":"elsewhere.gguf"}""", """{"mmproj":"/m/phi/eyes.gguf","draft_model":"elsewhere.gguf"}""", "")]
    [InlineData("""{"tts":{"voice":"en"},"diffusers":{"scheduler_type":"k","pipeline_type":"P","enable_parameters":"x"}}""", """{"scheduler_type":"k","pipeline_type":"P","voice":"en"}""", "diffusers.enable_parameters")]
    [InlineData("""{"embeddings":true,"roles":{"user":"U"},"function":{"grammar":{"parallel_calls":true}},"context_size":"many"}""", """{"embeddings":true}""", "roles, function, context_size")]
    [InlineData("""{"description":"x","usage":"y","known_usecases":["chat"],"mmproj":"","roles":{},"context_size":null}""", "{}", "")]
    public void Fields_become_options_and_those_without_use_are_told(string config, string options, string unused)
    {
        var read = Read(config, BackendCatalogue.Find("llama-cpp")!);

        var expected = JsonNode.Parse(options)!.AsObject();
        expected["served_model_name"] = "phi";
        var got = new JsonObject(read.EngineArgs.Select(one => KeyValuePair.Create(one.Key, JsonNode.Parse(one.Value.GetRawText()))));
        JsonNode.DeepEquals(got, expected).ShouldBeTrue(got.ToJsonString());
        string.Join(", ", read.Unused).ShouldBe(unused);
        read.Told("llama-cpp").ShouldBe(unused.Length == 0 ? null : $"not used with backend llama-cpp: {unused}");
    }

    [Fact]
    public void What_is_told_is_bounded()
    {
        var config = new JsonObject(Enumerable.Range(0, 500).Select(i => KeyValuePair.Create($"{new string('x', 300)}{i}", (JsonNode?)1)));

        Read(config.ToJsonString(), BackendCatalogue.Find("llama-cpp")!).Told("llama-cpp")!.Length.ShouldBeLessThan(1000);
        Read(config.ToJsonString(), GalleryRecipes.Of("llama-cpp-cpu")).Told("llama-cpp")!.Length.ShouldBeLessThan(1000);
    }

    [Theory]
    [InlineData("vllm", """{"context_size":8192,"dtype":"bfloat16","quantization":"","trust_remote_code":false,"enforce_eager":true,"engine_args":{"enable_prefix_caching":true,"served_model_name":"no"}}""",
        "--dtype bfloat16 --enforce-eager --max-model-len 8192 --enable-prefix-caching", "")]
    [InlineData("vllm", """{"max_model_len":4096,"context_size":8192}""", "--max-model-len 4096", "")]
    [InlineData("vllm", """{"context_size":0,"embeddings":true,"limit_mm_per_prompt":{"image":2},"seed":7}""", "--limit-mm-per-prompt {\"image\":2} --seed 7", "")]
    [InlineData("vllm", """{"trust_remote_code":"yes","gpu_layers":3,"parameters":{"model":"w.gguf","temperature":1},"template":{"use_tokenizer_template":true,"chat":"x"},"debug":false}""", "",
        "trust_remote_code, gpu_layers, parameters.temperature, template.chat")]
    [InlineData("vllm", """{"dtype":"half","engine_args":{"dtype":"float16","max-model-len":5},"context_size":4}""", "--dtype float16 --max-model-len 5", "")]
    [InlineData("llama-cpp-cuda", """{"context_size":8192,"gpu_layers":20,"f16":true,"mmap":true,"mmlock":false,"threads":4,"batch":64,"mmproj":"eyes.gguf"}""",
        "--ctx-size 8192 --threads 4 --n-gpu-layers 20 --batch-size 64 --mmproj /m/phi/eyes.gguf", "")]
    [InlineData("llama-cpp-cpu", """{"context_size":0,"f16":false,"mmap":false,"mmlock":true,"draft_model":"d.gguf","options":["use_jinja:true"],"system_prompt":"Be kind."}""", "--ctx-size 0",
        "f16, mmap, mmlock, draft_model, options, system_prompt")]
    [InlineData("llama-cpp-cpu", """{"flash_attention":true,"cache_type_k":"q8_0","embeddings":true,"reranking":false,"no_kv_offloading":true,"stopwords":["a"]}""",
        "--cache-type-k q8_0 --no-kv-offload --embeddings", "flash_attention, stopwords")]
    [InlineData("llama-cpp-cpu", """{"parameters":{"model":"w.gguf","temperature":0.2,"top_k":40,"max_tokens":64,"seed":7,"batch":32},"template":{"use_tokenizer_template":false},"function":{"grammar":{"a":1}}}""",
        "--batch-size 32 --temp 0.2 --top-k 40 --seed 7", "parameters.max_tokens, template.use_tokenizer_template, function")]
    [InlineData("sglang", """{"context_size":4096,"trust_remote_code":true,"dtype":"half","seed":3,"engine_args":{"attention_backend":"triton"}}""",
        "--context-length 4096 --dtype half --trust-remote-code --random-seed 3 --attention-backend triton", "")]
    [InlineData("embeddings-cpu", """{"embeddings":true,"dtype":"float16","context_size":512,"known_usecases":["embeddings"]}""", "--dtype float16", "context_size")]
    public void Fields_become_flags_as_the_recipe_has_them(string backend, string config, string flags, string unused)
    {
        var recipe = GalleryRecipes.Of(backend);

        var read = Read(config, recipe);

        var spec = new Core.Deployments.LaunchSpec { ModelName = "m", Owner = "o", EngineArgs = read.EngineArgs };
        var plain = new Core.Deployments.LaunchSpec { ModelName = "m", Owner = "o", EngineArgs = new Dictionary<string, System.Text.Json.JsonElement> { ["served_model_name"] = read.EngineArgs["served_model_name"] } };
        string.Join(' ', EngineCommandLine.Arguments(recipe, spec, 1).Skip(EngineCommandLine.Arguments(recipe, plain, 1).Count)).ShouldBe(flags);
        spec.PublicName.ShouldBe("phi");
        string.Join(", ", read.Unused).ShouldBe(unused);
        EngineRequestRules.Check(recipe, read.EngineArgs, [], []).ShouldBeNull();
    }

    [Fact]
    public void What_a_recipe_keeps_to_itself_no_configuration_says()
    {
        var recipe = RecipeRules.Read("x", """{"extends":"vllm","config_options":{"context_size":"port","seed":"served_model_name","dtype":"dtype"}}""");

        var read = Read("""{"context_size":22,"seed":"another","dtype":"half"}""", recipe);

        read.EngineArgs.ToDictionary(option => option.Key, option => option.Value.GetString()).ShouldBe(new Dictionary<string, string?> { ["dtype"] = "half", ["served_model_name"] = "phi" }, ignoreOrder: true);
        read.Unused.ShouldBe(["context_size"]);
    }

    [Theory]
    [InlineData("""{"mmproj":"other.gguf"}""", "mmproj")]
    [InlineData("""{"mmproj":"hf://owner/repo/eyes.gguf"}""", "mmproj")]
    [InlineData("""{"mmproj":["eyes.gguf"]}""", "mmproj")]
    [InlineData("""{"lora_adapter":"/etc/passwd"}""", "lora_adapter")]
    [InlineData("""{"mmproj":"my eyes.gguf"}""", "mmproj")] // comes with it, and cannot be named to the engine
    public void A_file_that_does_not_come_with_the_model_is_refused(string config, string field) =>
        ModelEngineOptions.Read(Model(config), GalleryRecipes.Of("llama-cpp-cpu"), "/m/phi").Failure!.Field.ShouldBe(field);

    [Fact]
    public void What_is_placed_is_read_apart_and_an_option_is_one_in_either_spelling()
    {
        var read = Read("""{"tensor_parallel_size":2,"gpu_memory_utilization":0.5,"context_size":5}""", GalleryRecipes.Of("llama-cpp-cpu"));
        var none = Read("""{"tensor_parallel_size":0,"gpu_memory_utilization":7}""", GalleryRecipes.Of("vllm"));

        ModelEngineOptions.Put(read.EngineArgs, "ctx-size", System.Text.Json.JsonSerializer.SerializeToElement(7));

        (read.TensorParallelSize, read.GpuMemoryFraction, none.TensorParallelSize, none.GpuMemoryFraction).ShouldBe((2, 0.5, null, null));
        read.EngineArgs.Keys.ShouldBe(["ctx-size", "served_model_name"], ignoreOrder: true);
        none.EngineArgs.Keys.ShouldBe(["served_model_name"]);
    }

    private static ModelEngineOptions Read(string config, BackendRecipe recipe) =>
        ModelEngineOptions.Read(Model(config), recipe, "/m/phi").Match(read => read, failure => throw new InvalidOperationException(failure.Detail));

    private static ComposedModel Model(string config) =>
        new("phi", "llama-cpp", JsonNode.Parse(config)!.AsObject(), [new GalleryFile("w.gguf", "https://example.org/w", ""), new GalleryFile("eyes.gguf", "https://example.org/e", ""), new GalleryFile("my eyes.gguf", "https://example.org/m", "")], []);
}
