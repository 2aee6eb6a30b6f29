using ModelHost.Core.Backends;
using YamlDotNet.Core;

namespace ModelHost.Tests.Backends;

public sealed class BackendCatalogueTests
{
    [Fact]
    public void Built_in_recipes_are_found_by_their_names()
    {
        BackendCatalogue.BuiltIn.Keys.ShouldBe(["simulator", "vllm"], ignoreOrder: true);
        BackendCatalogue.BuiltIn.ShouldAllBe(recipe => recipe.Key == recipe.Value.Name);
    }

    [Fact]
    public void A_recipe_that_extends_another_states_only_what_differs()
    {
        var recipe = BackendCatalogue.Parse("name: mine\nextends: vllm\nruntimes: [process]\ndenied_options: [model]\n", name =>
        {
            name.ShouldBe("vllm");
            return "name: vllm\nimage: repo/image\nruntimes: [docker]\ndenied_options: [model, host]\nmetrics:\n  requests: [a, b]\n";
        });

        (recipe.Name, recipe.Image).ShouldBe(("mine", "repo/image"));
        recipe.Runtimes.ShouldBe(["process"]);
        recipe.DeniedOptions.ShouldBe(["model"]);
        recipe.Metrics.Requests.ShouldBe(["a", "b"]);
        recipe.ReadyPath.ShouldBe("/health");
    }

    [Fact]
    public void The_simulator_keeps_the_rules_of_vllm()
    {
        var (vllm, simulator) = (BackendCatalogue.BuiltIn["vllm"], BackendCatalogue.BuiltIn["simulator"]);

        simulator.DeniedOptions.ShouldBe(vllm.DeniedOptions);
        simulator.Failures.Length.ShouldBe(vllm.Failures.Length);
        simulator.Runtimes.ShouldBe(["process"]);
        simulator.Image.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("name: a\nimagee: typo\n")]
    [InlineData("name: a\nmetrics: {request: [x]}\n")]
    [InlineData("name: a\nfailures: [{code: x, pattern: [y]}]\n")]
    [InlineData("- a list\n")]
    [InlineData("just text")]
    [InlineData("")]
    [InlineData("name: [a")]
    [InlineData("name: a\nname: b\n")]
    [InlineData("extends: [vllm]\n")]
    public void Text_that_is_no_recipe_is_an_error(string yaml) =>
        Should.Throw<YamlException>(() => BackendCatalogue.Parse(yaml, _ => "name: parent\n"));

    [Fact]
    public void Every_failure_pattern_is_an_expression_that_can_be_searched_for() =>
        BackendCatalogue.BuiltIn["vllm"].Failures.ShouldAllBe(rule => rule.Code.Length > 0 && rule.Message.EndsWith('.') && rule.Patterns.Length > 0);

    [Theory]
    [InlineData("llama-cpp", "grpc")]
    [InlineData("Stable.Diffusion_2", "grpc")]
    [InlineData("vllm", "openai")]
    [InlineData("", null)]
    [InlineData("../etc", null)]
    [InlineData("a/b", null)]
    [InlineData("a..b", null)]
    [InlineData(".hidden", null)]
    [InlineData("a b", null)]
    [InlineData(null, null)]
    public void What_is_not_built_in_may_be_installed_under_the_name_of_a_folder(string? name, string? protocol) =>
        (BackendCatalogue.Find(name) is { } found ? (found.Name, found.Protocol) : default).ShouldBe(protocol is null ? default : (name!, protocol));
}
