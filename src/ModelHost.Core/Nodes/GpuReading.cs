namespace ModelHost.Core.Nodes;

/// <summary>What one run of <c>nvidia-smi</c> gave.</summary>
/// <param name="ExitCode">How it ended; null: it did not run to its end.</param>
/// <param name="Output">What it wrote.</param>
/// <param name="Errors">What it wrote to its standard error.</param>
/// <param name="Failure">Why it did not run to its end; null: it did.</param>
/// <param name="NotInstalled">Whether there is no such program.</param>
public sealed record SmiAnswer(int? ExitCode, string Output = "", string Errors = "", string? Failure = null, bool NotInstalled = false);

/// <summary>What one question for the GPUs told.</summary>
/// <param name="Gpus">The GPUs that it describes.</param>
/// <param name="Problem">Why that may not be all of them; null: it is.</param>
public sealed record GpuReading(IReadOnlyList<GpuFacts> Gpus, string? Problem)
{
    // exit codes of its manual
    private const int NothingFound = 6;
    private const int CorruptInfoRom = 14;

    private const string LostCard = "Unable to determine the device handle";
    private const string NoDevices = "No devices were found";

    /// <summary>Reads an answer to <see cref="NvidiaSmi.GpuQuery"/>.</summary>
    /// <param name="answer">The answer.</param>
    /// <param name="ram">The system's memory, which GPUs without memory of their own use; null: it is unknown.</param>
    public static GpuReading Of(SmiAnswer answer, SystemMemory? ram)
    {
        ArgumentNullException.ThrowIfNull(answer);
        if (answer.NotInstalled)
            return new GpuReading([], null); // no driver: a node without GPUs
        if (answer.Failure is { } failure)
            return new GpuReading([], failure);
        var read = NvidiaSmi.ParseGpus(answer.Output);
        var gpus = read.Items.Select(gpu => UnifiedMemory.Apply(gpu, ram)).ToArray();
        var said = $"{answer.Output}\n{answer.Errors}";
        if (LineWith(said, LostCard) is { } lost)
            return new GpuReading(gpus, $"a card does not answer: {lost}");
        return answer.ExitCode switch
        {
            0 or NothingFound when gpus.Length == 0 && LineWith(said, NoDevices) is not null => new GpuReading([], null),
            // a damaged board description takes nothing away from the figures
            0 or CorruptInfoRom when read is { Unread: 0, Items.Count: > 0 } => new GpuReading(gpus, null),
            0 or CorruptInfoRom => new GpuReading(gpus, NotUnderstood(read)),
            var code => new GpuReading(gpus, $"nvidia-smi ended with exit code {code}: {Excerpt(said)}"),
        };
    }

    /// <summary>Reads an answer to <see cref="NvidiaSmi.ProcessQuery"/>.</summary>
    /// <returns>The processes, and why these may not be all; a problem of null: they are.</returns>
    public static (IReadOnlyList<GpuProcessFacts> Processes, string? Problem) Processes(SmiAnswer answer)
    {
        ArgumentNullException.ThrowIfNull(answer);
        if (answer.Failure is { } failure)
            return ([], failure);
        var read = NvidiaSmi.ParseProcesses(answer.Output);
        return (read.Items, answer.ExitCode is not (0 or CorruptInfoRom)
            ? $"nvidia-smi ended with exit code {answer.ExitCode}: {Excerpt($"{answer.Output}\n{answer.Errors}")}"
            : read.Unread > 0 ? NotUnderstood(read) : null);
    }

    private static string NotUnderstood<T>(SmiList<T> read) => read.FirstUnread is { } line
        ? $"nvidia-smi answered {read.Unread} lines that are not understood, the first: {line}"
        : "nvidia-smi answered nothing";

    private static string? LineWith(string text, string words)
    {
        foreach (var line in text.AsSpan().EnumerateLines())
        {
            if (line.Contains(words, StringComparison.OrdinalIgnoreCase))
                return NvidiaSmi.Text(line.Trim().ToString());
        }
        return null;
    }

    private static string Excerpt(string said)
    {
        var text = string.Join(' ', said.Split((char[]?)null, 64, StringSplitOptions.RemoveEmptyEntries));
        return text.Length == 0 ? "(it said nothing)" : NvidiaSmi.Text(text);
    }
}
