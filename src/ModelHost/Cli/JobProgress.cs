using System.Globalization;
using System.Text.Json;

namespace ModelHost.Cli;

/// <summary>Follows a job: a bar that moves on a terminal, elsewhere a line for each step.</summary>
internal static class JobProgress
{
    private const int Width = 30, MaxMessage = 60;
    private const double LineEvery = 10;
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(250);

    /// <summary>Waits for its end.</summary>
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
        while (true)
        {
            var status = await client.GetAsync(path, cancellationToken);
            var isEnd = status.GetProperty("processed").GetBoolean();
            var line = isPlain ? Step(status) : Bar(status);
            if (output is not null && line != shown)
                await output.WriteAsync(isPlain ? $"{line}{Environment.NewLine}" : $"\r{line}\u001b[K");
            shown = line;
            if (isEnd)
            {
                if (output is not null && !isPlain)
                    await output.WriteLineAsync();
                return status;
            }
            await Task.Delay(Poll, TimeProvider.System, cancellationToken);
        }
    }

    /// <summary>A bar with what goes on.</summary>
    public static string Bar(JsonElement status)
    {
        var percent = Math.Clamp(status.GetProperty("progress").GetDouble(), 0, 100);
        var full = (int)(percent / 100 * Width);
        return string.Create(CultureInfo.InvariantCulture, $"[{new string('=', full)}{new string(' ', Width - full)}] {percent,3:0}% {What(status)}");
    }

    // not a line for every byte
    private static string Step(JsonElement status)
    {
        var percent = Math.Floor(Math.Clamp(status.GetProperty("progress").GetDouble(), 0, 100) / LineEvery) * LineEvery;
        var phase = status.TryGetProperty("phase", out var word) ? word.GetString() : status.GetProperty("message").GetString();
        return string.Create(CultureInfo.InvariantCulture, $"{percent:0}% {Clean(phase ?? "")}");
    }

    private static string What(JsonElement status)
    {
        var (done, all) = (status.GetProperty("downloaded_size").GetString() ?? "", status.GetProperty("file_size").GetString() ?? "");
        var text = Clean(done.Length > 0 ? $"{status.GetProperty("file_name").GetString()} {done}{(all.Length > 0 ? $" of {all}" : "")}" : status.GetProperty("message").GetString() ?? "");
        return text.Length <= MaxMessage ? text : text[..(MaxMessage - 1)] + "…";
    }

    private static string Clean(string text) => string.Concat(text.Select(c => char.IsControl(c) ? ' ' : c));
}
