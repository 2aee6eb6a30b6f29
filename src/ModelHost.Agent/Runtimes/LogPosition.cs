using System.Globalization;

namespace ModelHost.Agent.Runtimes;

/// <summary>
/// A place in a container's log. Docker's times are exact to the nanosecond, which .NET's are not; Podman 4 writes whole seconds, so many lines carry
/// the same one.
/// </summary>
/// <param name="Timestamp">The time of the last line, as the engine wrote it.</param>
/// <param name="Lines">How many lines of that very time were read.</param>
internal sealed record LogPosition(string Timestamp, int Lines)
{
    /// <summary>Reads what <see cref="ToString"/> wrote; a time alone stands for all lines of it.</summary>
    public static LogPosition? Parse(string? text) =>
        text?.Split(' ') is not [var timestamp, .. var rest] ? null
        : new(timestamp, rest is [var lines] && int.TryParse(lines, NumberStyles.None, CultureInfo.InvariantCulture, out var count) ? count : int.MaxValue);

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Timestamp} {Lines}");

    /// <summary>The place behind one more line.</summary>
    public LogPosition With(string timestamp) => Compare(timestamp, Timestamp) switch
    {
        > 0 => new(timestamp, 1),
        0 => this with { Lines = Lines + 1 },
        _ => this,
    };

    /// <summary>The moment as the engine takes it: seconds since 1970, a dot, nanoseconds.</summary>
    public string? ToUnixTime() => ToTime(Timestamp) is { } time ? $"{time.ToUnixTimeSeconds()}.{Nanoseconds(Timestamp)}" : null;

    /// <summary>The moment of a line.</summary>
    public static DateTimeOffset? ToTime(string timestamp) =>
        DateTimeOffset.TryParse(timestamp, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time) ? time : null;

    /// <summary>Which of two lines comes first: below 0, 0 or above 0, as of all comparisons; one without a readable time comes after all others.</summary>
    public static int Compare(string timestamp, string other)
    {
        if ((ToTime(timestamp), ToTime(other)) is not ({ } a, { } b))
            return 1;
        var seconds = a.ToUnixTimeSeconds().CompareTo(b.ToUnixTimeSeconds());
        return seconds != 0 ? seconds : string.CompareOrdinal(Nanoseconds(timestamp), Nanoseconds(other));
    }

    private static string Nanoseconds(string timestamp)
    {
        var dot = timestamp.IndexOf('.', StringComparison.Ordinal);
        if (dot < 0)
            return "000000000";
        var digits = timestamp[(dot + 1)..].TakeWhile(char.IsAsciiDigit).Take(9).ToArray();
        return new string(digits).PadRight(9, '0');
    }
}
