using ModelHost.Agent.Http;

namespace ModelHost.Agent.Metering;

/// <summary>
/// Finds the model in a request's body in pieces as they arrive. The caller keeps the bytes that were not consumed.
/// </summary>
public abstract class BodyScanner
{
    /// <summary>Longest name of a model in bytes.</summary>
    protected const int LongestModel = 512;

    /// <summary>The model asked for; null: not found yet.</summary>
    public string? Model { get; protected set; }

    /// <summary>Whether the model was found, or is not needed.</summary>
    public virtual bool IsFound => Model is not null;

    /// <summary>Whether the body asks for a stream, as far as it has been scanned; of several such fields an engine takes the last.</summary>
    public bool Streams { get; protected set; }

    /// <summary>Where and why the body is not what it is called.</summary>
    public string Error { get; protected set; } = "";

    /// <summary>Scans on.</summary>
    /// <param name="bytes">What follows the bytes consumed so far.</param>
    /// <param name="isFinal">Whether nothing follows.</param>
    /// <param name="consumed">How many of the bytes need not be shown again.</param>
    public abstract ScanState Scan(ReadOnlySpan<byte> bytes, bool isFinal, out int consumed);

    /// <summary>What the sender of a body is told that cannot be read.</summary>
    public virtual OpenAiError Malformed() => OpenAiErrors.InvalidJson(Error);

    /// <summary>Looks at bytes that are passed on unjudged, after the last that were consumed.</summary>
    /// <returns>What is wrong with them; <see cref="ScanState.Reading"/>: nothing.</returns>
    public abstract ScanState Watch(ReadOnlySpan<byte> bytes);

    /// <summary>Whether the scan stands inside a field that can only be read whole.</summary>
    public virtual bool IsInside => false;

    /// <summary>Whether all of the body that says something has been scanned.</summary>
    public virtual bool HasEnded => false;

    /// <summary>What to change in the body, scanned to its end, so that a stream tells its count of tokens; null: nothing.</summary>
    public virtual BodyEdit? AskForUsage() => null;

    /// <summary>Where in the bytes that were watched last <see cref="BodyEdit.Last"/> asks for the count of tokens; -1: nowhere.</summary>
    public virtual int AsksForUsageAt => -1;
}

/// <summary>A change of a few bytes.</summary>
/// <param name="At">Where.</param>
/// <param name="Removes">How many bytes go.</param>
/// <param name="Text">What comes in their place.</param>
public readonly record struct BodyEdit(int At, int Removes, byte[] Text)
{
    /// <summary>Asks for the count of tokens as the last field of an object that has others.</summary>
    public static byte[] Last { get; } = ",\"stream_options\":{\"include_usage\":true}"u8.ToArray();
}
