using System.Globalization;

namespace ModelHost.Simulator.Flags;

/// <summary>Reads vLLM's counts: lower-case suffixes are decimal (1k = 1000), upper-case ones binary (1K = 1024).</summary>
internal static class TokenCount
{
    /// <summary>The value that stands for "fit to memory".</summary>
    public const long Auto = -1;

    public static long Parse(string flag, string text)
    {
        var trimmed = text.Trim();
        if (flag == "--max-model-len" && trimmed is "auto" or "-1")
            return Auto;
        if (trimmed.Length == 0)
            throw Invalid(flag, text);
        var suffix = trimmed[^1];
        var power = "kmgt".IndexOf(char.ToLowerInvariant(suffix), StringComparison.Ordinal) + 1;
        if (power == 0)
            return long.TryParse(trimmed, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var plain) ? plain : throw Invalid(flag, text);
        if (!decimal.TryParse(trimmed[..^1], NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number))
            throw Invalid(flag, text);
        if (char.IsUpper(suffix) && trimmed.Contains('.', StringComparison.Ordinal))
            throw new UsageException(
                $"argument {flag}: Decimals are not allowed with binary suffixes like {suffix}. Did you mean to use {trimmed[..^1]}{char.ToLowerInvariant(suffix)} instead?");
        var unit = char.IsLower(suffix) ? (decimal)Math.Pow(1000, power) : 1L << (10 * power);
        return number <= long.MaxValue / unit ? (long)(number * unit) : throw Invalid(flag, text);
    }

    private static UsageException Invalid(string flag, string text) => new(
        $"argument {flag}: invalid {(flag == "--max-model-len" ? "human_readable_int_or_auto" : "human_readable_int")} value: '{text}'");
}
