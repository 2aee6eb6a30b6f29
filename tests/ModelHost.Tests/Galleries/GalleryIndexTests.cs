using System.Diagnostics;
using System.Text;
using ModelHost.Core.Galleries;
using ModelHost.TestKit;

namespace ModelHost.Tests.Galleries;

/// <summary>Indexes are read with anchors and merge keys, and those made to harm cost little.</summary>
public sealed class GalleryIndexTests
{
    [Fact]
    public void Anchors_and_merge_keys_are_followed_and_own_fields_win()
    {
        var index = Parse("""
            - &phi
              url: "github:owner/repo/gallery/phi.yaml@master"
              name: phi
              license: mit
              icon: https://example.org/phi.png
              urls: &urls [https://huggingface.co/microsoft/phi]
              tags:
                - llm
                - gpu
              size: 7
              overrides: &over
                parameters: { model: phi.gguf, temperature: 0.5 }
                mmap: true
                context_size: 0x1000
                stopwords: ["1", 1, ~, '<|end|>', 1.5e1]
              files:
                - filename: phi.gguf
                  sha256: ABC
                  uri: huggingface://microsoft/phi/phi.gguf
            - !!merge <<: *phi
              name: phi-mini
              license: apache-2.0
            - <<: [*phi, {description: second, license: other}]
              name: phi-both
              overrides:
                <<: *over
                mmap: false
            """);

        index.Skipped.ShouldBe(0);
        index.Entries.Select(entry => entry.Name).ShouldBe(["phi", "phi-mini", "phi-both"]);
        index.Entries[0].Overrides!.ToJsonString().ShouldBe(
            """{"parameters":{"model":"phi.gguf","temperature":0.5},"mmap":true,"context_size":4096,"stopwords":["1",1,null,"\u003C|end|\u003E",15]}""");
        index.Entries[0].Size.ShouldBe("7");
        var mini = index.Entries[1];
        (mini.License, mini.Url, mini.Tags.Count, mini.Files[0].Filename).ShouldBe(("apache-2.0", "github:owner/repo/gallery/phi.yaml@master", 2, "phi.gguf"));
        (index.Entries[2].License, index.Entries[2].Description).ShouldBe(("mit", "second"));
        index.Entries[2].Overrides!["mmap"]!.GetValue<bool>().ShouldBeFalse();
        index.Entries[2].Overrides!["parameters"]!["temperature"]!.GetValue<double>().ShouldBe(0.5);
    }

    [Fact]
    public void What_is_no_entry_is_left_out_and_hides_no_other()
    {
        var index = Parse("- 7\n- []\n- {url: x}\n- {name: a}\n- {name: A, license: second}\n- {name: [b]}\n- {name: \"c\\u0007\"}\n- ~\n- {name: d, files: {x: y}, urls: 5, overrides: no, capabilities: [1]}\n");

        index.Entries.Select(entry => entry.Name).ShouldBe(["a", "d"]);
        index.Skipped.ShouldBe(7);
        (index.Entries[1].Files.Count, index.Entries[1].Urls.Count, index.Entries[1].IsEmpty).ShouldBe((0, 0, true));
        Parse("").Entries.ShouldBeEmpty();
        Parse("[]").Entries.ShouldBeEmpty();
    }

    [Fact]
    public void Backends_have_capabilities_and_recipes()
    {
        var index = Parse("- {name: vllm, capabilities: {nvidia: cuda-vllm, default: cpu-vllm}}\n- {name: cuda-vllm, alias: vllm, uri: quay.io/x/y:z, mirrors: [a, b], recipe: {image: x, runtimes: [docker]}}");

        (index.Entries[0].IsMeta, index.Entries[0].Capabilities["nvidia"]).ShouldBe((true, "cuda-vllm"));
        (index.Entries[1].IsMeta, index.Entries[1].Alias, index.Entries[1].Recipe!.ToJsonString()).ShouldBe((false, "vllm", """{"image":"x","runtimes":["docker"]}"""));
    }

    [Theory]
    [InlineData("name: a", "list")]
    [InlineData("- [", "YAML")]
    [InlineData("- *nothing", "alias")]
    [InlineData("- &a [*a]", "alias")]
    [InlineData("- {? [x] : y}", "key")]
    [InlineData("- {<<: 5}", "merge")]
    [InlineData("- \"\\xZZ secret\"", "YAML")]
    public void What_is_no_index_is_refused_and_not_quoted(string text, string expected)
    {
        var refused = Should.Throw<GalleryFormatException>(() => Parse(text));

        refused.Message.ShouldContain(expected);
        refused.Message.ShouldNotContain("secret");
    }

    [Fact]
    public void Nesting_is_bounded()
    {
        Should.Throw<GalleryFormatException>(() => Parse(new string('[', 100_000))).Message.ShouldContain("levels");
        Should.Throw<GalleryFormatException>(() => Parse("- name: a\n  overrides: " + string.Concat(Enumerable.Repeat("{a: ", 100)))).Message.ShouldContain("levels");
    }

    [Theory]
    [InlineData("overrides")]
    [InlineData("config_file")]
    [InlineData("urls")]
    [InlineData("merge")]
    [InlineData("text")]
    public void Bombs_end_early(string kind)
    {
        var bomb = new StringBuilder("- &a0 {name: a0, x: [1,2,3,4,5,6,7,8,9,10]}\n");
        for (var i = 1; i < 12; i++)
            bomb.Append($"- &a{i} {{name: a{i}, x: [{string.Join(',', Enumerable.Repeat($"*a{i - 1}", 10))}]}}\n");
        var text = kind switch
        {
            "urls" => $"- &u [{string.Join(',', Enumerable.Repeat("x", 2000))}]\n" + string.Concat(Enumerable.Range(0, 2000).Select(i => $"- {{name: e{i}, urls: *u}}\n")),
            "merge" => $"- &m {{{string.Join(',', Enumerable.Range(0, 2000).Select(i => $"k{i}: 1"))}}}\n" + string.Concat(Enumerable.Range(0, 2000).Select(i => $"- {{name: e{i}, <<: *m}}\n")),
            "text" => $"- &t {new string('x', 1_000_000)}\n" + string.Concat(Enumerable.Range(0, 300).Select(i => $"- {{name: e{i}, overrides: {{t: *t}}}}\n")),
            _ => $"{bomb}- {{name: last, {kind}: *a11}}",
        };

        var before = GC.GetAllocatedBytesForCurrentThread();
        var refused = Should.Throw<GalleryFormatException>(() => Parse(text));

        refused.Message.ShouldContain("more than");
        (GC.GetAllocatedBytesForCurrentThread() - before).ShouldBeLessThan(2L * 1024 * 1024 * 1024);
    }

    [Fact]
    public void A_text_within_the_text_counts_too()
    {
        var inner = "x: &a [1,2,3,4,5,6,7,8,9]\\ny: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\\nz: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\\nw: [*c,*c,*c,*c,*c,*c,*c,*c,*c]";
        var text = string.Concat(Enumerable.Range(0, 1000).Select(i => $"- {{name: e{i}, config_file: \"{inner}\"}}\n"));

        Should.Throw<GalleryFormatException>(() => Parse(text)).Message.ShouldContain("more than");
    }

    [Fact]
    public void A_gallery_as_large_as_the_largest_known_is_read_whole()
    {
        var text = LargeGallery.Text(1700);
        text.Length.ShouldBeGreaterThan(2_300_000);
        var watch = Stopwatch.StartNew();

        var index = Parse(text);

        TestContext.Current.SendDiagnosticMessage($"{text.Length} characters in {watch.ElapsedMilliseconds} ms");
        index.Entries.Count.ShouldBe(1700);
        index.Entries[1699].Files[0].Uri.ShouldStartWith("huggingface://");
        watch.Elapsed.ShouldBeLessThan(Deadline.Allowed(1));
    }

    [Theory]
    [InlineData("name: phi\nconfig_file: |\n  backend: llama-cpp\n  parameters: {model: x}\nfiles:\n- {filename: x, uri: y}\nprompt_templates:\n- {name: chat, content: hi}", 1, 1)]
    [InlineData("name: phi\nconfig_file: {backend: llama-cpp, parameters: {model: x}}", 0, 0)]
    public void A_configuration_is_a_text_or_a_mapping(string text, int files, int templates)
    {
        var config = GalleryIndex.ParseConfig(new StringReader(text));

        (config.Name, config.Files.Count, config.PromptTemplates.Count).ShouldBe(("phi", files, templates));
        config.ConfigFile!.ToJsonString().ShouldBe("""{"backend":"llama-cpp","parameters":{"model":"x"}}""");
    }

    [Fact]
    public void A_configuration_may_stand_alone()
    {
        GalleryIndex.ParseConfig(new StringReader("name: phi\nbackend: vllm\nparameters: {model: a/b}")).ConfigFile!.ToJsonString()
            .ShouldBe("""{"name":"phi","backend":"vllm","parameters":{"model":"a/b"}}""");
        Should.Throw<GalleryFormatException>(() => GalleryIndex.ParseConfig(new StringReader("- a")));
    }

    [Theory]
    [InlineData("phi", null)]
    [InlineData("Qwen2.5-7B(q4_k_m)", null)]
    [InlineData("Qwen2.5 7B", "holds")]
    [InlineData("../phi", "holds")]
    [InlineData("a/b", "holds")]
    [InlineData(".hidden", "begins")]
    [InlineData("a..b", "'..'")]
    [InlineData("a\\b", "holds")]
    [InlineData("a\nb", "holds")]
    [InlineData(" ", "empty")]
    public void Names_lead_nowhere(string name, string? fault)
    {
        if (fault is null)
            GalleryNames.NameFault(name).ShouldBeNull();
        else
            GalleryNames.NameFault(name)!.ShouldContain(fault);
    }

    private static GalleryIndex Parse(string text) => GalleryIndex.Parse(new StringReader(text));
}
