using System.Globalization;
using System.Text.Json;
using ModelHost.Core;

namespace ModelHost.Features.Galleries;

/// <summary>Understands which nodes a request means.</summary>
internal static class NodeTargets
{
    private const int MaxShown = 64, MaxNamed = 256;

    /// <summary>The words of a JSON list: numbers count as their text.</summary>
    public static IReadOnlyList<string>? Words(IReadOnlyList<JsonElement>? list) =>
        list?.Select(element => element.ValueKind == JsonValueKind.String ? element.GetString()! : element.GetRawText()).ToArray();

    /// <summary>The ids of the nodes named by id or host name, each once; none, if none is named.</summary>
    /// <param name="known">The names of the linked nodes by id.</param>
    /// <param name="named">What was asked for.</param>
    public static Result<int[]> Find(IReadOnlyDictionary<int, string> known, IReadOnlyList<string?>? named)
    {
        if (named?.Count > MaxNamed)
            return Failure.Invalid("nodes", $"holds more than {MaxNamed}");
        var found = new List<int>();
        foreach (var text in named ?? [])
        {
            var same = known.Where(node => node.Key.ToString(CultureInfo.InvariantCulture) == text || node.Value.Equals(text, StringComparison.OrdinalIgnoreCase)).Select(node => node.Key).ToArray();
            if (same.Length != 1)
            {
                return Failure.Invalid("nodes", $"{text?[..Math.Min(text.Length, MaxShown)]} {(same.Length == 0 ? "is none" : "stands for several")}; {Names(known)}");
            }
            found.Add(same[0]);
        }
        return found.Distinct().Order().ToArray();
    }

    /// <summary>The same, where one has to be named unless there is only one.</summary>
    public static Result<int[]> FindOrOnly(IReadOnlyDictionary<int, string> known, IReadOnlyList<string?>? named) =>
        named is { Count: > 0 } ? Find(known, named) : known.Count == 1 ? known.Keys.ToArray()
        : Failure.Invalid("nodes", known.Count == 0 ? Names(known) : $"is required: {Names(known)}");

    private static string Names(IReadOnlyDictionary<int, string> known) =>
        known.Count == 0 ? "there is no node" : $"the nodes are {string.Join(", ", known.OrderBy(node => node.Key).Select(node => $"{node.Key} ({node.Value})"))}";
}
