namespace ModelHost.Docker;

/// <summary>Which part of a log to read.</summary>
public sealed record LogQuery
{
    /// <summary>Goes on with what is written from now on, until the container ends; otherwise stops at the end of what is there.</summary>
    public bool Follow { get; init; }

    /// <summary>Asks for the time of each line.</summary>
    public bool Timestamps { get; init; }

    /// <summary>How many of the last lines to start with; null for all.</summary>
    public int? Tail { get; init; }

    /// <summary>Unix seconds, with nanoseconds after a dot (<c>1700000000.000000001</c>): only lines from then on. Null for all.</summary>
    public string? Since { get; init; }
}

/// <summary>One line of a log, or a piece of at most 16 KiB of a longer one.</summary>
/// <param name="Stream">Where the container wrote it. All of a container with a terminal is <see cref="LogStream.Stdout"/>.</param>
/// <param name="Text">The line without its line feed. Carriage returns of progress bars are still in it.</param>
/// <param name="Timestamp">RFC 3339 time with nanoseconds, just as the engine wrote it; null when not asked for.</param>
public readonly record struct LogLine(LogStream Stream, string Text, string? Timestamp);

/// <summary>The two outputs of a process.</summary>
#pragma warning disable CA1711 // it names the outputs of a process, which everybody calls streams
public enum LogStream
#pragma warning restore CA1711
{
    /// <summary>Standard output.</summary>
    Stdout,

    /// <summary>Standard error.</summary>
    Stderr,
}
