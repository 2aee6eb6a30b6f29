namespace ModelHost.Simulator.Flags;

/// <summary>
/// <c>--config FILE</c>: a flat YAML file of flags. Only what such files consist of is read: <c>key: value</c>, booleans, and lists of
/// <c>- item</c> lines.
/// </summary>
internal static class ConfigFile
{
    /// <summary>Puts the file's flags before the others, so that the command line wins.</summary>
    public static IReadOnlyList<string> Expand(IReadOnlyList<string> arguments)
    {
        for (var i = 0; i < arguments.Count; i++)
        {
            var inline = arguments[i].StartsWith("--config=", StringComparison.Ordinal);
            if (!inline && arguments[i] != "--config")
                continue;
            if (!inline && i + 1 == arguments.Count)
                throw new UsageException("argument --config: expected one argument");
            var path = inline ? arguments[i]["--config=".Length..] : arguments[i + 1];
            if (!File.Exists(path))
                throw new UsageException($"argument --config: can't open '{path}'");
            // a positional model stays in front: a list flag at the end of the file would swallow it
            var leading = arguments.TakeWhile(argument => !argument.StartsWith('-')).ToArray();
            return [.. leading, .. Read(path), .. arguments.Take(i).Skip(leading.Length), .. arguments.Skip(i + (inline ? 1 : 2))];
        }
        return arguments;
    }

    private static IEnumerable<string> Read(string path)
    {
        foreach (var raw in File.ReadLines(path))
        {
            var line = raw.Trim();
            if (line.Length == 0 || line[0] == '#')
                continue;
            if (line.StartsWith("- ", StringComparison.Ordinal))
            {
                yield return Plain(line[2..]);
                continue;
            }
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            if (colon <= 0)
                throw new UsageException($"argument --config: cannot read the line '{line}' of {path}");
            var value = Plain(line[(colon + 1)..]);
            if (value is "false")
                continue;
            yield return "--" + line[..colon].Trim();
            if (value is not ("" or "true"))
                yield return value;
        }
    }

    private static string Plain(string value)
    {
        var trimmed = value.Trim();
        return trimmed.Length >= 2 && trimmed[0] is ('\'' or '"') && trimmed[^1] == trimmed[0] ? trimmed[1..^1] : trimmed;
    }
}
