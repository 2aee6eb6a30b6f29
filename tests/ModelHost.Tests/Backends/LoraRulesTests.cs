using System.Text.Json;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;

namespace ModelHost.Tests.Backends;

public sealed class LoraRulesTests
{
    [Theory]
    [InlineData("sql", "org/sql-lora")]
    [InlineData("sql", "sql-lora")]
    [InlineData("team/sql", "/srv/adapters/sql")]
    [InlineData("sql:1", "/srv/a/models--org--x/snapshots/0a1b")]
    public void An_adapter_has_a_public_name_and_a_source(string name, string path) => Check([new(name, path)]).ShouldBeNull();

    [Theory]
    [InlineData("", "org/x")]
    [InlineData("a b", "org/x")]
    [InlineData("-a", "org/x")]
    [InlineData("a=b", "org/x")]
    [InlineData("a\n", "org/x")]
    [InlineData("org/base", "org/x")]
    [InlineData("a", "")]
    [InlineData("a", "~/x")]
    [InlineData("a", "~root/x")]
    [InlineData("a", "file:///srv/x")]
    [InlineData("a", "FILE:/srv/x")]
    [InlineData("a", "s3://bucket/x")]
    [InlineData("a", "./x")]
    [InlineData("a", "../x")]
    [InlineData("a", "/srv/../etc")]
    [InlineData("a", "/srv/./x")]
    [InlineData("a", "/srv//x")]
    [InlineData("a", "/srv/x/")]
    [InlineData("a", "/")]
    [InlineData("a", "/srv/a b")]
    [InlineData("a", "/srv/a:ro")]
    [InlineData("a", "/srv/ä")]
    [InlineData("a", "a/b/c")]
    [InlineData(null, "org/x")]
    [InlineData("a", null)]
    public void Other_names_and_sources_are_refused(string? name, string? path) =>
        Check([new(name!, path!)]).ShouldNotBeNull().ShouldBe("lora_modules");

    [Fact]
    public void A_name_is_given_once() => Check([new("a", "org/x"), new("a", "org/y")]).ShouldBe("lora_modules");

    [Theory]
    [InlineData("""{"max_loras": 4, "max_lora_rank": 64, "max_cpu_loras": 8}""", true)]
    [InlineData("""{"max-loras": "4"}""", true)]
    [InlineData("""{"max_loras": null}""", true)]
    [InlineData("""{"enable_lora": true}""", true)]
    [InlineData("""{"enable_lora": false}""", false)]
    [InlineData("""{"max_loras": 0}""", false)]
    [InlineData("""{"max_loras": -1}""", false)]
    [InlineData("""{"max_loras": 1.5}""", false)]
    [InlineData("""{"max_loras": "many"}""", false)]
    [InlineData("""{"max_loras": true}""", false)]
    [InlineData("""{"max_lora_rank": 99999999999}""", false)]
    [InlineData("""{"max_loras": 4, "max_cpu_loras": 2}""", false)]
    public void Options_for_adapters_go_together(string arguments, bool possible) =>
        Check([new("a", "org/x")], arguments).ShouldBe(possible ? null : "engine_args");

    private static string? Check(LoraModule[] modules, string arguments = "{}") =>
        LoraRules.Check("org/base", modules, JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(arguments)!)?.Field;
}
