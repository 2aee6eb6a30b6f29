using System.Text.Json.Nodes;
using ModelHost.Core.Backends;
using ModelHost.Core.Galleries;
using ModelHost.Features.Galleries;

namespace ModelHost.Tests.Galleries;

/// <summary>What configurations of LocalAI's galleries say to a gRPC backend.</summary>
public sealed class BackendModelOptionsTests
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
        var read = BackendModelOptions.Read(Model(config), BackendCatalogue.Find("llama-cpp")!, "/m/phi");

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

        BackendModelOptions.Read(Model(config.ToJsonString()), BackendCatalogue.Find("llama-cpp")!, "/m").Told("llama-cpp")!.Length.ShouldBeLessThan(1000);
    }

    private static ComposedModel Model(string config) =>
        new("phi", "llama-cpp", JsonNode.Parse(config)!.AsObject(), [new GalleryFile("w.gguf", "https://example.org/w", ""), new GalleryFile("eyes.gguf", "https://example.org/e", "")], []);
}
