using System.Globalization;

namespace ModelHost.Cluster;

/// <summary>Which agents a control plane works with: those of its own minor version and of the ones beside it, so that neither has to be updated first.</summary>
internal static class AgentVersion
{
    /// <summary>The version of this program.</summary>
    public static Version Own { get; } = typeof(AgentVersion).Assembly.GetName().Version!;

    /// <summary>Whether an agent is too old or too new.</summary>
    /// <param name="agent">What it says of itself.</param>
    /// <param name="own">The version of the control plane.</param>
    /// <returns>Why; null: it is neither.</returns>
    public static string? Fault(string agent, Version own)
    {
        if (!Version.TryParse(agent, out var version))
            return "The agent does not tell a version that can be read.";
        if (version.Major == own.Major && Math.Abs(version.Minor - own.Minor) <= 1)
            return null;
        var older = version.Major < own.Major || (version.Major == own.Major && version.Minor < own.Minor);
        return string.Create(CultureInfo.InvariantCulture,
            $"The agent's version {version} is too {(older ? "old" : "new")} for the control plane's {own.ToString(3)}: one minor version more or less works. Update the {(older ? "agent" : "control plane")}.");
    }
}
