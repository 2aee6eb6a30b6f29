namespace ModelHost.Simulator.Options;

/// <summary>What differs between releases of vLLM, by the release's number.</summary>
internal sealed class Release(string name)
{
    private readonly Version _version = Version.TryParse(name.TrimStart('v').Split('-', '+', 'r')[0], out var parsed) ? parsed : new(0, 28);

    /// <summary>Reasoning goes out as <c>reasoning_content</c>: until Nov 2025 alone, then beside the new name until about 0.17.</summary>
    public bool WritesReasoningContent => _version < new Version(0, 17);

    /// <summary>Reasoning goes out as <c>reasoning</c>.</summary>
    public bool WritesReasoning => _version >= new Version(0, 12);
}
