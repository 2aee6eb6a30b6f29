using System.Globalization;
using System.Text;

namespace ModelHost.Simulator.Flags;

/// <summary>What the command line said, by flag key; absent keys were not given.</summary>
internal sealed class FlagValues
{
    private static readonly string[] Secrets = ["api_key", "hf_token"];

    private readonly Dictionary<string, object> _values = [];

    /// <summary>The positional model, if one was given.</summary>
    public string? ModelTag { get; set; }

    public void Set(string key, object value) => _values[key] = value;

    public bool Has(string key) => _values.ContainsKey(key);

    public string? Text(string key) => _values.GetValueOrDefault(key) as string;

    public long? Integer(string key) => _values.TryGetValue(key, out var value) ? (long)value : null;

    public double? Number(string key) => _values.TryGetValue(key, out var value) ? (double)value : null;

    public bool Switch(string key, bool otherwise = false) => _values.TryGetValue(key, out var value) ? (bool)value : otherwise;

    public IReadOnlyList<string> List(string key) => _values.GetValueOrDefault(key) as IReadOnlyList<string> ?? [];

    /// <summary>The given values as Python prints a dictionary, as in the "non-default args" line; secrets are masked.</summary>
    public override string ToString()
    {
        var text = new StringBuilder("{");
        if (ModelTag is not null)
            text.Append(CultureInfo.InvariantCulture, $"'model_tag': '{ModelTag}'");
        foreach (var (key, value) in _values)
        {
            text.Append(text.Length > 1 ? ", " : "");
            text.Append(CultureInfo.InvariantCulture, $"'{key}': {(Secrets.Contains(key) ? "'***'" : Show(value))}");
        }
        return text.Append('}').ToString();
    }

    private static string Show(object value) => value switch
    {
        bool flag => flag ? "True" : "False",
        double number => number.ToString("R", CultureInfo.InvariantCulture),
        long number => number.ToString(CultureInfo.InvariantCulture),
        IReadOnlyList<string> items => $"[{string.Join(", ", items.Select(item => $"'{item}'"))}]",
        _ => $"'{value}'",
    };
}
