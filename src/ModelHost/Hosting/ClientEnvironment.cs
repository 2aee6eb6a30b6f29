namespace ModelHost.Hosting;

/// <summary>What the environment says to commands that speak to a running control plane. Options go before it.</summary>
/// <param name="Url">Where the control plane listens: <c>MODELHOST_URL</c>; null: not said.</param>
/// <param name="Key">The key to show: <c>MODELHOST_KEY</c>, an admin key or an API key; null: not said.</param>
internal sealed record ClientEnvironment(string? Url, string? Key)
{
    /// <summary>Name of the variable with the address.</summary>
    public const string UrlName = "MODELHOST_URL";

    /// <summary>Name of the variable with the key. There is no option for it: command lines are seen by every user of a machine.</summary>
    public const string KeyName = "MODELHOST_KEY";

    /// <summary>Reads it.</summary>
    public static ClientEnvironment Read() => new(Variable(UrlName), Variable(KeyName));

    // not shown by what prints records
    private bool PrintMembers(System.Text.StringBuilder builder)
    {
        builder.Append($"Url = {Url}");
        return true;
    }

#pragma warning disable RS0030 // the environment of commands is read here
    private static string? Variable(string name) => Environment.GetEnvironmentVariable(name)?.Trim() is { Length: > 0 } value ? value : null;
#pragma warning restore RS0030
}
