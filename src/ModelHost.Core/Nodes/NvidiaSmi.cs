using System.Globalization;
using System.Text.RegularExpressions;

namespace ModelHost.Core.Nodes;

/// <summary>What was understood of an answer.</summary>
/// <typeparam name="T">What was asked for.</typeparam>
/// <param name="Items">What was read.</param>
/// <param name="Unread">Lines that are neither items nor known remarks.</param>
/// <param name="FirstUnread">The first of them, shortened; null: there is none.</param>
public sealed record SmiList<T>(IReadOnlyList<T> Items, int Unread, string? FirstUnread);

/// <summary>
/// The questions that are put to <c>nvidia-smi</c>, and how its answers are read. Its manual promises no stable format: a word where
/// a number belongs is unknown, never zero, and a line that is not understood is counted, never guessed at.
/// </summary>
public static partial class NvidiaSmi
{
    private const long Mib = 1024 * 1024;
    private const int MaxIndex = 1023;
    private const int MaxText = 128;
    private const int MaxProcesses = 4096;
    private const int MaxInstances = 512;

    private const int GpuColumns = 11;
    private const int NameColumn = 2;
    private const int AppColumns = 4;

    /// <summary>Arguments that ask for the GPUs; the order of the fields is the order of the columns.</summary>
    public static IReadOnlyList<string> GpuQuery { get; } =
    [
        "--query-gpu=index,uuid,name,memory.total,memory.used,memory.free,utilization.gpu,temperature.gpu,power.draw,mig.mode.current,driver_version",
        "--format=csv,noheader,nounits",
    ];

    /// <summary>Arguments that ask for the processes that compute on GPUs.</summary>
    public static IReadOnlyList<string> ProcessQuery { get; } =
        ["--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits"];

    /// <summary>Arguments that ask for the list of cards with their MIG instances, which the queries leave out.</summary>
    public static IReadOnlyList<string> ListQuery { get; } = ["-L"];

    /// <summary>Reads the answer to <see cref="GpuQuery"/>, in its order.</summary>
    public static SmiList<GpuFacts> ParseGpus(string csv)
    {
        var seen = new HashSet<int>();
        return ParseLines(csv, MaxIndex + 1, line => ParseGpu(line) is { } gpu && seen.Add(gpu.Index) ? gpu : null);
    }

    /// <summary>Reads the answer to <see cref="ProcessQuery"/>, in its order; at most 4096 processes.</summary>
    public static SmiList<GpuProcessFacts> ParseProcesses(string csv) => ParseLines(csv, MaxProcesses, ParseProcess);

    /// <summary>Reads the instances out of the answer to <see cref="ListQuery"/>.</summary>
    public static IReadOnlyList<MigInstance> ParseInstances(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var instances = new List<MigInstance>();
        var card = "";
        foreach (var line in text.AsSpan().EnumerateLines())
        {
            var words = line.Trim().ToString();
            if (CardLine().Match(words) is { Success: true } found)
                card = found.Groups["uuid"].Value;
            else if (InstanceLine().Match(words) is { Success: true } instance && card.Length > 0 && instances.Count < MaxInstances)
                instances.Add(new MigInstance(card, int.Parse(instance.Groups["index"].ValueSpan, CultureInfo.InvariantCulture),
                    instance.Groups["profile"].Value, instance.Groups["uuid"].Value));
        }
        return instances;
    }

    private static SmiList<T> ParseLines<T>(string csv, int most, Func<string, T?> parse)
        where T : class
    {
        ArgumentNullException.ThrowIfNull(csv);
        var items = new List<T>();
        var (unread, first) = (0, (string?)null);
        foreach (var line in csv.AsSpan().EnumerateLines())
        {
            var text = line.Trim().ToString();
            if (text.Length == 0 || text.StartsWith("WARNING:", StringComparison.OrdinalIgnoreCase) || IsHeader(text))
                continue;
            if (items.Count < most && parse(text) is { } item)
            {
                items.Add(item);
                continue;
            }
            unread++;
            first ??= Text(text);
        }
        return new SmiList<T>(items, unread, first);
    }

    private static GpuFacts? ParseGpu(string line)
    {
        if (Cells(line, GpuColumns, NameColumn) is not { } cells || Index(cells[0]) is not { } index || index > MaxIndex)
            return null;
        // the one column of known words tells whether the others stand where they should
        if (Word(cells[9]) is not (null or "Enabled" or "Disabled"))
            return null;
        var total = Bytes(cells[3]);
        var used = Bytes(cells[4]);
        // more used than there is cannot be right
        return new GpuFacts(index, Word(cells[1]) ?? "", Text(cells[2]), total, used > total ? null : used,
            Number(cells[6], "%") is { } busy and <= 100 ? (int)busy : null, (int?)Number(cells[7], "C"), Number(cells[8], "W"))
        {
            MigEnabled = cells[9] switch { "Enabled" => true, "Disabled" => false, _ => null },
            Driver = Word(cells[10]),
        };
    }

    private static GpuProcessFacts? ParseProcess(string line) =>
        Cells(line, AppColumns, NameColumn) is { } cells && Word(cells[0]) is { } gpu && Index(cells[1]) is { } pid and > 0
            ? new GpuProcessFacts(gpu, pid, Word(cells[2]), Bytes(cells[3]))
            : null;

    /// <summary>
    /// Splits a line at comma and blank, as it is written: a decimal comma stays in its cell. A name may hold commas, so what is over
    /// the column count belongs to it. Null: there are too few.
    /// </summary>
    private static string[]? Cells(string line, int columns, int name)
    {
        var cells = (line + " ").Split(", ", StringSplitOptions.TrimEntries); // the last cell may be empty
        var over = cells.Length - columns;
        return over < 0 ? null : [.. cells[..name], string.Join(", ", cells[name..(name + over + 1)]), .. cells[(name + over + 1)..]];
    }

    private static int? Index(string cell) => int.TryParse(cell, NumberStyles.None, CultureInfo.InvariantCulture, out var index) ? index : null;

    private static long? Bytes(string cell) => Number(cell, "MiB") is { } mib ? (long)mib * Mib : null;

    /// <summary>A number, with its unit or without; null: it is none.</summary>
    private static double? Number(string cell, string unit)
    {
        var digits = cell.EndsWith(unit, StringComparison.Ordinal) ? cell[..^unit.Length].TrimEnd() : cell;
        return double.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var value)
            && value < int.MaxValue ? value : null; // NaN is not below
    }

    /// <summary>A cell's text; null for the words that stand for its absence: <c>[N/A]</c>, <c>[Not Found]</c>, <c>N/A</c>, <c>-</c>.</summary>
    private static string? Word(string cell) =>
        cell.Length == 0 || cell is "N/A" or "-" or "ERR!" || (cell[0] == '[' && cell[^1] == ']') ? null : Text(cell);

    /// <summary>What may be shown: of bounded length, and without control characters.</summary>
    internal static string Text(string raw)
    {
        var text = raw.Length > MaxText ? raw[..MaxText] + "…" : raw;
        return text.Any(char.IsControl) ? string.Concat(text.Select(c => char.IsControl(c) ? '?' : c)) : text;
    }

    /// <summary>A driver that does not know <c>noheader</c> names the columns first.</summary>
    private static bool IsHeader(string line) =>
        line.StartsWith("index, uuid", StringComparison.OrdinalIgnoreCase) || line.StartsWith("gpu_uuid, pid", StringComparison.OrdinalIgnoreCase);

    [GeneratedRegex(@"^GPU \d+: .*\(UUID: (?<uuid>[^)\s]{1,64})\)$", RegexOptions.NonBacktracking)]
    private static partial Regex CardLine();

    [GeneratedRegex(@"^MIG (?<profile>\S{1,32})\s+Device\s+(?<index>\d{1,3}): \(UUID: (?<uuid>MIG-[^)\s]{1,96})\)$", RegexOptions.NonBacktracking)]
    private static partial Regex InstanceLine();
}
