namespace ModelHost.Agent.Engines;

/// <summary>Keeps secret values out of logs.</summary>
internal sealed class Redactor(IReadOnlyList<string> secrets)
{
    private const string Mask = "********";
    private const int ShortestSecret = 6;
    private static readonly string[] SecretWords = ["TOKEN", "SECRET", "KEY", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "AUTH"];

    // each line of a secret by itself: logs are cleaned line by line
    private readonly string[] _secrets = [.. secrets.SelectMany(s => s.Split('\r', '\n')).Where(s => s.Length >= ShortestSecret).Distinct().OrderByDescending(s => s.Length)];

    /// <summary>Whether the value of a variable of this name is to be kept out of logs.</summary>
    public static bool IsSecretName(string name) => SecretWords.Any(word => name.Contains(word, StringComparison.OrdinalIgnoreCase));

    /// <summary>The line with every secret value masked.</summary>
    public string Clean(string line)
    {
        foreach (var secret in _secrets)
        {
            if (line.Contains(secret, StringComparison.Ordinal))
                line = line.Replace(secret, Mask, StringComparison.Ordinal);
        }
        return line;
    }
}
