using System.Text.Json;
using ModelHost.Core.Backends;
using ModelHost.Core.Routing;

namespace ModelHost.Tests.Routing;

public sealed class GenerationDefaultsTests
{
    [Fact]
    public void A_deployment_that_says_nothing_has_those_of_LocalAI()
    {
        GenerationDefaults.Of("vllm-grpc", Args("{}")).ShouldBe(GenerationDefaults.None);
        GenerationDefaults.Of("llama-cpp", Args("{}")).TopK.ShouldBe(40);
        (GenerationDefaults.None.Temperature, GenerationDefaults.None.TopP, GenerationDefaults.None.Seed).ShouldBe((0.9f, 0.95f, -1));
    }

    [Fact]
    public void What_it_says_counts_and_equal_ones_are_equal()
    {
        const string Json = """
            {"use_tokenizer_template":false,"temperature":0.5,"top_k":3,"max_tokens":7,"seed":5,"batch":64,"ignore_eos":true,"system_prompt":"Be kind.","voice":"v","stopwords":["a","b"]}
            """;

        var defaults = GenerationDefaults.Of("x", Args(Json));

        (defaults.UseTokenizerTemplate, defaults.Temperature, defaults.TopK, defaults.MaxTokens, defaults.Seed, defaults.Batch, defaults.IgnoreEos, defaults.SystemPrompt, defaults.Voice)
            .ShouldBe((false, 0.5f, 3, 7, 5, 64, true, "Be kind.", "v"));
        defaults.StopWords().ShouldBe(["a", "b"]);
        GenerationDefaults.Of("x", Args(Json)).ShouldBe(defaults, "or the table of routes would be swapped again and again");
    }

    [Fact]
    public void Each_option_is_checked_and_is_no_option_of_loading()
    {
        foreach (var name in GenerationDefaults.Options)
        {
            GenerationDefaults.Check(Args($$$"""{"{{{name}}}":{"a":1}}""")).ShouldNotBeNull().Detail.ShouldContain($"'{name}' takes ");
            GenerationDefaults.Check(Args($$"""{"{{name}}":null}""")).ShouldBeNull();
            BackendCatalogue.Find("some-backend")!.ControlOptions.ShouldContain(name);
        }
        GenerationDefaults.Of("x", Args("""{"temperature":"hot","stopwords":[1]}""")).ShouldBe(GenerationDefaults.None);
    }

    private static Dictionary<string, JsonElement> Args(string json) => JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!;
}
