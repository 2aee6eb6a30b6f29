using System.Collections.Frozen;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;

namespace ModelHost.Core.Backends;

/// <summary>What follows an option.</summary>
internal enum OptionKind
{
    /// <summary>Nobody knows: it takes all that follows.</summary>
    Unknown,
    /// <summary>Nothing.</summary>
    Switch,
    /// <summary>One text or number.</summary>
    Value,
    /// <summary>One JSON text.</summary>
    Json,
    /// <summary>One or more texts.</summary>
    List,
    /// <summary>One text or nothing.</summary>
    Optional,
}

/// <summary>An option as it stands on a command line.</summary>
/// <param name="Name">Its name with dashes, as argparse compares it: <c>--max-model-len</c>, <c>-q</c>.</param>
/// <param name="Values">What belongs to it.</param>
internal sealed record GivenOption(string Name, IReadOnlyList<string> Values);

/// <summary>Reads the arguments of an engine the way Python's argparse does, as far as its options are known.</summary>
internal sealed partial class OptionReader
{
    private static readonly ConditionalWeakTable<BackendRecipe, OptionReader> Readers = [];

    private readonly FrozenDictionary<string, OptionKind> _kinds;

    private OptionReader(KnownOptions options)
    {
        (string[] Names, OptionKind Kind)[] kinds =
        [
            (options.Switches, OptionKind.Switch), (options.Values, OptionKind.Value), (options.Json, OptionKind.Json),
            (options.Lists, OptionKind.List), (options.Optional, OptionKind.Optional),
        ];
        _kinds = kinds.SelectMany(kind => kind.Names.SelectMany(name => Spellings(name, kind.Kind)).Select(name => (name, kind.Kind)))
            .ToFrozenDictionary(pair => pair.name, pair => pair.Kind, StringComparer.Ordinal);
    }

    /// <summary>The reader for a recipe's options.</summary>
    public static OptionReader Of(BackendRecipe recipe) => Readers.GetValue(recipe, static r => new OptionReader(r.Options));

    /// <summary>Every known name that a spelling stands for: itself, or else all that begin with it.</summary>
    public IReadOnlyList<string> Resolve(string name) =>
        _kinds.ContainsKey(name) ? [name]
        : name.StartsWith("--", StringComparison.Ordinal) && name.Length > 2 ? [.. _kinds.Keys.Where(known => known.StartsWith(name, StringComparison.Ordinal))]
        : [];

    /// <summary>What follows an option of this spelling.</summary>
    public OptionKind KindOf(string name)
    {
        var kinds = Resolve(name).Select(known => _kinds[known]).Distinct().ToArray();
        return kinds.Length == 1 ? kinds[0] : OptionKind.Unknown;
    }

    /// <summary>Whether a name is that of a known option in full, and abbreviates none.</summary>
    public bool IsWhole(string name) => _kinds.ContainsKey(name);

    /// <summary>Takes a command line apart.</summary>
    /// <param name="arguments">The arguments.</param>
    /// <param name="stray">The first argument that is no option and that no option takes: the engine would read it as a model; null: there is none.</param>
    public IReadOnlyList<GivenOption> Read(IReadOnlyList<string> arguments, out string? stray)
    {
        stray = null;
        var given = new List<GivenOption>();
        for (var i = 0; i < arguments.Count;)
        {
            var argument = arguments[i++];
            if (!IsOption(argument))
            {
                stray ??= argument;
                continue;
            }
            var equals = argument.IndexOf('=', StringComparison.Ordinal);
            var values = new List<string>();
            if (equals >= 0)
                values.Add(argument[(equals + 1)..]);
            else
            {
                for (var room = Room(argument); room > 0 && i < arguments.Count && !IsOption(arguments[i]); room--)
                    values.Add(arguments[i++]);
            }
            given.Add(new GivenOption(NameOf(argument), values));
        }
        return given;
    }

    /// <summary>The name of an option as argparse compares it: dashes for underscores, without a value and without a dotted key.</summary>
    public static string NameOf(string argument)
    {
        var name = argument.Split('=', '.')[0];
        return name.StartsWith("--", StringComparison.Ordinal) ? name.Replace('_', '-') : name;
    }

    private int Room(string argument)
    {
        // --name.key value, whatever the option takes otherwise
        if (argument.Contains('.', StringComparison.Ordinal))
            return 1;
        var name = NameOf(argument);
        var kind = KindOf(name);
        // a value glued to its short option: -q4, -O3
        if (kind == OptionKind.Unknown && name.Length > 2 && name[1] != '-' && KindOf(name[..2]) != OptionKind.Unknown)
            return 0;
        return kind switch
        {
            OptionKind.Switch => 0,
            OptionKind.Value or OptionKind.Json or OptionKind.Optional => 1,
            OptionKind.List or OptionKind.Unknown => int.MaxValue,
        };
    }

    private static bool IsOption(string argument) =>
        argument.Length > 1 && argument[0] == '-' && !NegativeNumber().IsMatch(argument)
        // an option and its value in one text are no option
        && !argument.Split('=')[0].Contains(' ', StringComparison.Ordinal);

    private static IEnumerable<string> Spellings(string name, OptionKind kind) =>
        name.StartsWith('-') ? [name] : kind == OptionKind.Switch ? ["--" + name, "--no-" + name] : ["--" + name];

    [GeneratedRegex(@"\A-(\d+|\d*\.\d+)\z")]
    private static partial Regex NegativeNumber();
}
