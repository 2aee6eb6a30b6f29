namespace ModelHost.Simulator.Flags;

/// <summary>The command line cannot be used: argparse prints its usage and this message, and exits with code 2.</summary>
internal sealed class UsageException(string message) : Exception(message);

/// <summary><c>--help</c> or <c>--version</c> was asked for: the text goes to standard output, exit code 0.</summary>
internal sealed class InformationRequestedException(bool version) : Exception("information requested")
{
    /// <summary>True for the version, false for the usage.</summary>
    public bool Version { get; } = version;
}
