using System.Globalization;

namespace ModelHost.Simulator.Options;

/// <summary>A knob is unknown or has a value that cannot be used; the process does not start.</summary>
internal sealed class KnobException(string message) : Exception(message);

/// <summary>The text of one knob, read as what the knob needs.</summary>
internal readonly record struct KnobText(string Name, string Text)
{
    /// <summary>A timer takes no more than some 49 days.</summary>
    public const double MostSeconds = 2_000_000;

    private const double Unlimited = 1e9;

    public double Number(double most = Unlimited)
    {
        if (!double.TryParse(Text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number) || number >= Unlimited)
            throw new KnobException($"{Name}: '{Text}' is not a number from 0 on");
        return number <= most ? number : throw TooMuch(most);
    }

    public int Integer(int most = int.MaxValue)
    {
        if (!int.TryParse(Text, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
            throw new KnobException($"{Name}: '{Text}' is not a whole number from 0 on");
        return number <= most ? number : throw TooMuch(most);
    }

    public TimeSpan Seconds() => TimeSpan.FromSeconds(Number(MostSeconds));

    public TimeSpan Milliseconds(double most = MostSeconds) => TimeSpan.FromMilliseconds(Number(most));

    public T Named<T>() where T : struct, Enum =>
        Text.Length == 0 ? default
        : Enum.TryParse<T>(Text.Replace("_", "", StringComparison.Ordinal), ignoreCase: true, out var parsed) && !char.IsAsciiDigit(Text[0]) ? parsed
        : throw new KnobException($"{Name}: '{Text}' is none of {string.Join(", ", Enum.GetNames<T>()).ToLowerInvariant()}");

    /// <summary>Checked here, because a container without host IPC is the usual reason for its absence.</summary>
    public string? GpuFolder() => Text.Length == 0 ? null
        : File.Exists(Path.Combine(Text, "gpus.csv")) ? Text : throw new KnobException($"{Name}: there is no gpus.csv in {Text}");

    private KnobException TooMuch(double most) => new($"{Name}: at most {most.ToString(CultureInfo.InvariantCulture)}");
}
