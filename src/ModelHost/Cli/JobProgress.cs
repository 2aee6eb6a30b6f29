using System.Globalization;
using System.Text.Json;
using static ModelHost.Cli.CommandText;

namespace ModelHost.Cli;

/// <summary>Follows a job: a bar that moves on a terminal, elsewhere a line for each step.</summary>
internal static class JobProgress
{
    private const int Width = 30;
    private const double LineEvery = 10;
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(250);

    // a control plane that starts again goes on with the job
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    /// <summary>Waits for its end. A control plane that does not answer is waited for up to a minute.</summary>
    /// <param name="client">Where it runs.</param>
    /// <param name="path">Where its status is read.</param>
    /// <param name="output">Where progress is shown; null: nowhere.</param>
    /// <param name="isPlain">Whether that is no terminal.</param>
    /// <param name="cancellationToken">Ends the wait; the job goes on.</param>
    /// <returns>Its last status.</returns>
    /// <exception cref="ServerException">The control plane cannot be asked any more.</exception>
    public static async Task<JsonElement> FollowAsync(ServerClient client, string path, TextWriter? output, bool isPlain, CancellationToken cancellationToken)
    {
        var shown = "";
        async Task ShowAsync(string line)
        {
            // a line that wraps cannot be written over
            if (!isPlain && line.Length >= Console.WindowWidth && Console.WindowWidth > 1)
                line = line[..(Console.WindowWidth - 2)] + "…";
            if (output is not null && line != shown)
                await output.WriteAsync(isPlain ? $"{line}{Environment.NewLine}" : $"\r{line}\u001b[K");
            shown = line;
        }

        long? lost = null;
        try
        {
            while (true)
            {
                try
                {
                    var status = await client.GetAsync(path, cancellationToken);
                    lost = null;
                    await ShowAsync(isPlain ? Step(status) : Bar(status));
                    if (status.GetProperty("processed").GetBoolean())
                        return status;
                }
                catch (ServerException e) when (e.IsUnreached && TimeProvider.System.GetElapsedTime(lost ??= TimeProvider.System.GetTimestamp()) < Patience)
                {
                    await ShowAsync("the control plane does not answer; it is waited for");
                }
                await Task.Delay(Poll, TimeProvider.System, cancellationToken);
            }
        }
        finally
        {
            if (output is not null && !isPlain && shown.Length > 0)
                await output.WriteLineAsync();
        }
    }

    /// <summary>A bar with what goes on; what a job has ended with is not for it.</summary>
    public static string Bar(JsonElement status)
    {
        var percent = Math.Clamp(status.GetProperty("progress").GetDouble(), 0, 100);
        var full = (int)(percent / 100 * Width);
        return string.Create(CultureInfo.InvariantCulture, $"[{new string('=', full)}{new string(' ', Width - full)}] {percent,3:0}% {(status.GetProperty("processed").GetBoolean() ? "" : What(status))}").TrimEnd();
    }

    // not a line for every byte
    private static string Step(JsonElement status)
    {
        var percent = Math.Floor(Math.Clamp(status.GetProperty("progress").GetDouble(), 0, 100) / LineEvery) * LineEvery;
        var phase = status.TryGetProperty("phase", out var word) ? word.GetString() : status.GetProperty("message").GetString();
        return string.Create(CultureInfo.InvariantCulture, $"{percent:0}% {Clean(phase ?? "")}{Waiting(status)}");
    }

    private static string What(JsonElement status) => Clean(Nodes(status) is { Length: > 1 } nodes ? string.Join(", ", nodes.Select(NodeShare)) : File(status)) + Waiting(status);

    private static string File(JsonElement status)
    {
        var (done, all) = (status.GetProperty("downloaded_size").GetString() ?? "", status.GetProperty("file_size").GetString() ?? "");
        return done.Length > 0 ? $"{status.GetProperty("file_name").GetString()} {done}{(all.Length > 0 ? $" of {all}" : "")}" : status.GetProperty("message").GetString() ?? "";
    }

    private static JsonElement[] Nodes(JsonElement status) => status.TryGetProperty("nodes", out var nodes) && nodes.ValueKind == JsonValueKind.Array ? [.. nodes.EnumerateArray()] : [];

    // the file of the whole is now this node's, now that one's
    private static string NodeShare(JsonElement node) => string.Create(CultureInfo.InvariantCulture, $"{node.GetProperty("node_name").GetString()} {node.GetProperty("percentage").GetDouble():0}%");

    // a node that goes on although it has an error is one that is waited for
    private static string Waiting(JsonElement status) => string.Concat(Nodes(status)
        .Where(node => node.TryGetProperty("error", out _) && node.GetProperty("status").GetString() is not ("error" or "success") && !status.GetProperty("processed").GetBoolean())
        .Select(node => Clean($"; {node.GetProperty("node_name").GetString()}: {node.GetProperty("error").GetString()}")));
}
