namespace ModelHost.Agent.Engines;

/// <summary>Keeps secret values out of logs.</summary>
internal sealed class Redactor(IReadOnlyList<string> secrets)
{
    private const string Mask = "********";
    private const int ShortestSecret = 6;
    private static readonly string[] SecretWords = ["TOKEN", "SECRET", "KEY", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "AUTH"];

    // each line of a secret by itself: logs are cleaned line by line
    private readonly string[] _secrets = [.. secrets.SelectMany(s => s.Split('\r', '\n')).Where(s => s.Length >= ShortestSecret).Distinct().OrderByDescending(s => s.Length)];

    /// <summary>What of a variable's value is to be kept out of logs: all of it if its name says so, else the password of an address.</summary>
    public static IEnumerable<string> SecretsOf(string name, string value)
    {
        if (SecretWords.Any(word => name.Contains(word, StringComparison.OrdinalIgnoreCase)))
            yield return value;
        // https_proxy=http://user:password@proxy:3128, DATABASE_URL=...
        else if (Uri.TryCreate(value, UriKind.Absolute, out var uri) && uri.UserInfo.Split(':', 2) is [_, var password])
        {
            yield return password;
            yield return Uri.UnescapeDataString(password);
        }
    }

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
