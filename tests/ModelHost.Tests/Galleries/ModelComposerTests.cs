using System.Text.Json.Nodes;
using ModelHost.Core;
using ModelHost.Core.Artifacts;
using ModelHost.Core.Galleries;

namespace ModelHost.Tests.Galleries;

/// <summary>Models are put together from galleries, addresses and requests; nothing in them leads out of their folder.</summary>
public sealed class ModelComposerTests
{
    [Fact]
    public void Later_parts_have_their_way()
    {
        var model = Compose(new ModelParts
        {
            Fetched = new() { Name = "base", ConfigFile = Json("""{"backend":"llama","parameters":{"model":"a","temperature":1},"stopwords":["a"],"mmap":true}"""), Files = [new("a.gguf", "https://example.org/1", "")] },
            Entry = new() { Name = "phi/mini", Url = "x", Overrides = Json("""{"parameters":{"model":"a.gguf"},"stopwords":["b","c"]}"""), Files = [new("a.gguf", "https://example.org/2", new string('A', 64))] },
            Overrides = Json("""{"parameters":{"temperature":0},"context_size":8192,"name":"ignored","mmap":null}"""),
            Files = [new("", "hf://owner/repo/dir/b.gguf", "")],
        });

        model.Name.ShouldBe("phi__mini");
        model.Config.ToJsonString().ShouldBe("""{"backend":"llama-cpp","parameters":{"model":"a.gguf","temperature":0},"stopwords":["b","c"],"mmap":null,"context_size":8192,"name":"phi__mini"}""");
        model.Files.ShouldBe([new GalleryFile("a.gguf", "https://example.org/2", new string('a', 64)), new GalleryFile("b.gguf", "hf://owner/repo/dir/b.gguf", "")]);
        (model.Backend, model.Model).ShouldBe(("llama-cpp", "a.gguf"));
    }

    [Theory]
    [InlineData("""{"parameters":{"model":"Qwen/Qwen3-8B"}}""", "vllm")]
    [InlineData("""{"download_files":[{"filename":"x.GGUF","uri":"https://example.org/x"}]}""", "llama-cpp")]
    [InlineData("""{"backend":"sglang"}""", "sglang")]
    public void A_backend_is_found_where_none_is_said(string config, string backend) =>
        Compose(new ModelParts { Name = "a", ConfigFile = Json(config) }).Backend.ShouldBe(backend);

    [Theory]
    [InlineData("""{"backend":"../x"}""", "backend")]
    [InlineData("""{"backend":"a b"}""", "backend")]
    [InlineData("""{"parameters":{"model":"../../etc/passwd"}}""", "parameters.model")]
    [InlineData("""{"parameters":{"model":"a\\..\\b"}}""", "parameters.model")]
    [InlineData("""{"mmproj":"/etc/passwd"}""", "mmproj")]
    [InlineData("""{"lora_adapter":"x/../../y"}""", "lora_adapter")]
    [InlineData("""{"download_files":[{"filename":"../x","uri":"https://example.org/x"}]}""", "files.filename")]
    [InlineData("""{"download_files":[{"filename":"/x","uri":"https://example.org/x"}]}""", "files.filename")]
    [InlineData("""{"download_files":[{"filename":"x","uri":"ftp://example.org/x"}]}""", "files.uri")]
    [InlineData("""{"download_files":[{"filename":"x","uri":"https://example.org/x","sha256":"abc"}]}""", "files.sha256")]
    public void What_leads_astray_is_refused_by_its_field(string config, string field) =>
        ModelComposer.Compose(new ModelParts { Name = "a", ConfigFile = Json(config) }).Failure!.Field.ShouldBe(field);

    [Theory]
    [InlineData("../x")]
    [InlineData(".x")]
    [InlineData("a/b")]
    [InlineData("")]
    public void Names_that_lead_astray_are_refused(string name) =>
        ModelComposer.Compose(new ModelParts { Name = name, ConfigFile = Json("""{"backend":"x"}""") }).Failure!.Field.ShouldBe("name");

    [Fact]
    public void An_entry_with_nothing_in_it_is_refused()
    {
        var refused = ModelComposer.Compose(new ModelParts { Entry = new() { Name = "a", Description = "x" } }).Failure!;

        (refused.Kind, refused.Detail).ShouldBe((FailureKind.Invalid, "there is nothing to install in it: neither a url, a config_file, overrides nor files"));
    }

    [Theory]
    [InlineData("phi-3.5", "phi-3.5")]
    [InlineData("llama3.1:8b", "llama3.1_8b-")]
    [InlineData("huggingface", "huggingface-")]
    [InlineData("日本", "model-")]
    public void Every_name_has_a_folder_of_its_own(string name, string expected)
    {
        var folder = GalleryNames.ToFolder(name);

        folder.ShouldStartWith(expected);
        ArtifactNames.NameFault(folder).ShouldBeNull();
    }

    [Theory]
    [InlineData(LooseFilePolicy.LooseOnly, "b.gguf")]
    [InlineData(LooseFilePolicy.SkipIfConfigured, "a,b.gguf")]
    [InlineData(LooseFilePolicy.SkipAlways, "a")]
    [InlineData(LooseFilePolicy.AlwaysInclude, "a,a.gguf,b.gguf")]
    public void Loose_files_are_listed_as_the_policy_says(LooseFilePolicy policy, string expected)
    {
        string[] files = ["a.gguf", "b.gguf", "x.yaml", "README.md", "MODEL_CARD", "y.json", "z.safetensors", "w.partial", ".hidden"];

        LooseFiles.List([new("a", "a.gguf"), new("other", "b.gguf")], files, policy, name => name is not "other").ShouldBe(expected.Split(','));
    }

    private static ComposedModel Compose(ModelParts parts) => ModelComposer.Compose(parts).Match(model => model, failure => throw new InvalidOperationException(failure.Detail));

    private static JsonObject Json(string text) => JsonNode.Parse(text)!.AsObject();
}
