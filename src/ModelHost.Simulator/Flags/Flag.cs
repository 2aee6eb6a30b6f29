namespace ModelHost.Simulator.Flags;

/// <summary>What a flag takes after its name.</summary>
internal enum FlagKind
{
    /// <summary>One string, from a closed set when the flag has choices.</summary>
    Text,

    /// <summary>A string or nothing (<c>--hf-token</c>).</summary>
    OptionalText,

    /// <summary>A whole number.</summary>
    Integer,

    /// <summary>A decimal number.</summary>
    Number,

    /// <summary>Nothing; has a <c>--no-</c> twin.</summary>
    Switch,

    /// <summary>One JSON text; also takes <c>--flag.key value</c>.</summary>
    Json,

    /// <summary>A count such as 4096, 4k (4000), 4K (4096), 25.6k, and for some flags -1 or <c>auto</c>.</summary>
    Count,

    /// <summary>One or more strings.</summary>
    List,
}

/// <summary>One flag of <c>vllm serve</c>.</summary>
internal sealed record Flag(string[] Names, FlagKind Kind, string[]? Choices = null)
{
    /// <summary>The name of the value: <c>max_model_len</c> for <c>--max-model-len</c>.</summary>
    public string Key { get; } = Names[0].TrimStart('-').Replace('-', '_');

    /// <summary>How argparse names the flag in an error: all its names, a switch with its twin.</summary>
    public string Shown => string.Join('/', Kind == FlagKind.Switch ? Names.SelectMany(WithTwin) : Names);

    private static IEnumerable<string> WithTwin(string name) =>
        name.StartsWith("--", StringComparison.Ordinal) ? [name, "--no-" + name[2..]] : [name];
}
