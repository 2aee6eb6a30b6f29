using ModelHost.Core.Backends;
using ModelHost.Simulator.Flags;
using ModelHost.Simulator.Options;

namespace ModelHost.Tests.Backends;

public sealed class OptionReaderTests
{
    private static readonly OptionReader Reader = OptionReader.Of(BackendCatalogue.BuiltIn["vllm"]);

    [Theory]
    [InlineData("--enforce-eager x/y", "x/y")]
    [InlineData("--enforce_eager x/y", "x/y")]
    [InlineData("--enforce-e x/y", "x/y")]
    [InlineData("--no-enable-prefix-caching x/y", "x/y")]
    [InlineData("--no-enable-prefix x/y", "x/y")]
    [InlineData("-ep x/y", "x/y")]
    [InlineData("--max-model-len 4096 x/y", "x/y")]
    [InlineData("--max-model-len=4096 x/y", "x/y")]
    [InlineData("--max_model 4096 x/y", "x/y")]
    [InlineData("--hf-overrides.a 1 x/y", "x/y")]
    [InlineData("-q awq x/y", "x/y")]
    [InlineData("-qawq x/y", "x/y")]
    [InlineData("--seed -1 -2", "-2")]
    [InlineData("-1", "-1")]
    [InlineData("--hf-token abc x/y", "x/y")]
    [InlineData("--unknown=1 --enforce-eager x/y --seed 1 z", "x/y")]
    [InlineData("--max-model-len 4096", null)]
    [InlineData("--seed -1", null)]
    [InlineData("--hf-token --enforce-eager", null)]
    [InlineData("--logits-processors a b c --enforce-eager", null)]
    [InlineData("--unknown a b", null)]
    [InlineData("-O3 --quantization awq", null)]
    public void What_no_option_takes_is_found(string line, string? stray)
    {
        Reader.Read(line.Split(' '), out var found);

        found.ShouldBe(stray);
    }

    [Fact]
    public void An_option_and_its_value_in_one_text_are_no_option()
    {
        Reader.Read(["--max-model-len 4096"], out var stray);
        var read = Reader.Read(["--chat-template=a b", "--chat-template", "--looks odd"], out var none);

        stray.ShouldBe("--max-model-len 4096");
        none.ShouldBeNull();
        read.Select(option => (option.Name, Value: option.Values.Single())).ShouldBe([("--chat-template", "a b"), ("--chat-template", "--looks odd")]);
    }

    /// <summary>Two tables made independently, this one and the simulator's, agree on what follows each option.</summary>
    [Fact]
    public void What_follows_an_option_is_what_the_simulated_engine_takes()
    {
        foreach (var (name, (flag, _)) in new FlagTable(new Release(Release.Default)).ByName)
        {
            Reader.KindOf(name).ShouldBe(flag.Kind switch
            {
                FlagKind.Switch => OptionKind.Switch,
                FlagKind.Json => OptionKind.Json,
                FlagKind.List => OptionKind.List,
                FlagKind.OptionalText => OptionKind.Optional,
                FlagKind.Text or FlagKind.Integer or FlagKind.Number or FlagKind.Count => OptionKind.Value,
            }, name);
        }
    }
}
