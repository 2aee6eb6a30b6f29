using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace ModelHost.Simulator.Flags;

/// <summary>Reads a command line the way Python's argparse does for <c>vllm serve</c>, with its error texts.</summary>
internal static partial class FlagParser
{
    /// <exception cref="UsageException">argparse would refuse this line.</exception>
    /// <exception cref="InformationRequestedException">The line asks for help or the version.</exception>
    public static FlagValues Parse(IReadOnlyList<string> arguments, FlagTable table)
    {
        var values = new FlagValues();
        var unknown = new List<string>();
        for (var i = 0; i < arguments.Count;)
        {
            var argument = arguments[i++];
            if (!IsOption(argument))
            {
                if (values.ModelTag is null)
                    values.ModelTag = argument;
                else
                    unknown.Add(argument);
                continue;
            }
            var (name, given) = Split(argument);
            if (name is "-h" or "--help" or "-v" or "--version")
                throw new InformationRequestedException(name is "-v" or "--version");
            if (!TryResolve(table, name, out var flag, out var negated))
                unknown.Add(given is null ? name : $"{name}={given}");
            else
                Take(values, flag, negated, name, given, arguments, ref i);
        }
        return unknown.Count == 0 ? values : throw new UsageException("unrecognized arguments: " + string.Join(' ', unknown));
    }

    private static void Take(
        FlagValues values, Flag flag, bool negated, string name, string? given, IReadOnlyList<string> arguments, ref int next)
    {
        switch (flag.Kind)
        {
            case FlagKind.Switch:
                values.Set(flag.Key, given is null
                    ? !negated
                    : throw new UsageException($"argument {flag.Shown}: ignored explicit argument '{given}'"));
                return;
            case FlagKind.List:
                var items = given is null ? new List<string>() : [given];
                while (given is null && next < arguments.Count && !IsOption(arguments[next]))
                    items.Add(arguments[next++]);
                if (items.Count == 0)
                    throw new UsageException($"argument {flag.Shown}: expected at least one argument");
                values.Set(flag.Key, items);
                return;
            default:
                if (given is null && next < arguments.Count && !IsOption(arguments[next]))
                    given = arguments[next++];
                if (given is null)
                {
                    if (flag.Kind != FlagKind.OptionalText)
                        throw new UsageException($"argument {flag.Shown}: expected one argument");
                    values.Set(flag.Key, true);
                    return;
                }
                // --hf-overrides.key value sets one member of the JSON object; the value itself need not be JSON
                values.Set(flag.Key, name.Contains('.', StringComparison.Ordinal) ? given : Convert(flag, given));
                return;
        }
    }

    private static object Convert(Flag flag, string text)
    {
        object value = flag.Kind switch
        {
            FlagKind.Integer => long.TryParse(text, NumberStyles.Integer, CultureInfo.InvariantCulture, out var integer)
                ? integer : throw new UsageException($"argument {flag.Shown}: invalid int value: '{text}'"),
            FlagKind.Number => double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number)
                ? number : throw new UsageException($"argument {flag.Shown}: invalid float value: '{text}'"),
            FlagKind.Count => TokenCount.Parse(flag.Names[0], text),
            FlagKind.Json => IsJson(text)
                ? text : throw new UsageException($"argument {flag.Shown}: Value {text} cannot be converted to <function loads>."),
            FlagKind.Text or FlagKind.OptionalText or FlagKind.Switch or FlagKind.List => text,
        };
        if (flag.Choices is { } choices && !choices.Contains(text))
        {
            var quote = flag.Kind == FlagKind.Text ? "'" : "";
            throw new UsageException($"argument {flag.Shown}: invalid choice: {quote}{text}{quote} " +
                $"(choose from {string.Join(", ", choices.Select(choice => quote + choice + quote))})");
        }
        return value;
    }

    private static bool TryResolve(FlagTable table, string name, out Flag flag, out bool negated)
    {
        if (!table.ByName.TryGetValue(name, out var found))
        {
            var dot = name.IndexOf('.', StringComparison.Ordinal);
            if (dot > 0)
            {
                negated = false;
                return TryResolve(table, name[..dot], out flag, out negated) && flag.Kind == FlagKind.Json;
            }
            var matches = name.StartsWith("--", StringComparison.Ordinal)
                ? table.ByName.Keys.Where(known => known.StartsWith(name, StringComparison.Ordinal)).Order(StringComparer.Ordinal).ToArray()
                : [];
            if (matches.Length > 1)
                throw new UsageException($"ambiguous option: {name} could match {string.Join(", ", matches)}");
            if (matches.Length == 0)
            {
                (flag, negated) = (table.All[0], false);
                return false;
            }
            found = table.ByName[matches[0]];
        }
        (flag, negated) = found;
        return true;
    }

    /// <summary>Names are compared with dashes; only the part before <c>=</c> and before a dot is a name.</summary>
    private static (string Name, string? Value) Split(string argument)
    {
        var equals = argument.IndexOf('=', StringComparison.Ordinal);
        var name = equals < 0 ? argument : argument[..equals];
        var dot = name.IndexOf('.', StringComparison.Ordinal);
        name = dot < 0 ? name.Replace('_', '-') : name[..dot].Replace('_', '-') + name[dot..];
        return (name, equals < 0 ? null : argument[(equals + 1)..]);
    }

    private static bool IsOption(string argument) =>
        argument.Length > 1 && argument[0] == '-' && !argument.Contains(' ', StringComparison.Ordinal) && !NegativeNumber().IsMatch(argument);

    private static bool IsJson(string text)
    {
        try
        {
            using var document = JsonDocument.Parse(text);
            return true;
        }
        catch (JsonException)
        {
            return false;
        }
    }

    [GeneratedRegex(@"^-\d+$|^-\d*\.\d+$")]
    private static partial Regex NegativeNumber();
}
