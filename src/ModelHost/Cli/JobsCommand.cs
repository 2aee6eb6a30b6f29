using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using static ModelHost.Cli.CommandText;

namespace ModelHost.Cli;

/// <summary><c>modelhost jobs</c>: lists the jobs of models and of backends, and cancels one, through the running control plane.</summary>
internal static class JobsCommand
{
    /// <summary>Makes it.</summary>
    public static Command Make()
    {
        var server = new ServerOptions();
        var json = new Option<bool>("--json") { Description = "Print the control plane's answer as JSON, and nothing else." };
        var id = new Argument<string>("id") { Description = "The job, as modelhost jobs shows it." };
        var cancel = new Command("cancel", "Cancel a job: what was there before it is as it was.") { id, json, server.Data, server.Url };
        cancel.SetAction((parsed, _) => server.RunAsync(parsed, (client, cancellationToken) => CancelAsync(client, parsed.GetValue(id)!, parsed.GetValue(json), cancellationToken)));
        var jobs = new Command("jobs", "Jobs that install and remove models and backends: list, cancel.") { json, server.Data, server.Url, cancel };
        jobs.SetAction((parsed, _) => server.RunAsync(parsed, (client, cancellationToken) => ListAsync(client, parsed.GetValue(json), cancellationToken)));
        return jobs;
    }

    /// <summary>What a job is at, in a word.</summary>
    internal static string State(JsonElement job) => job.GetProperty("processed").GetBoolean()
        ? job.GetProperty("cancelled").GetBoolean() ? "cancelled" : job.TryGetProperty("error", out _) ? "failed" : "done"
        : Text(job, "phase") == "queued" ? "queued" : "running";

    private static async Task<int> ListAsync(ServerClient client, bool asJson, CancellationToken cancellationToken)
    {
        var answer = await client.GetAsync("models/jobs", cancellationToken);
        if (asJson)
        {
            await Console.Out.WriteLineAsync(Json(answer));
            return 0;
        }
        string[][] rows = [["ID", "KIND", "NAME", "STATE", "PROGRESS", "MESSAGE"], .. answer.EnumerateObject().Select(Row)];
        if (rows.Length > 1)
        {
            var widths = Enumerable.Range(0, rows[0].Length - 1).Select(column => rows.Max(row => row[column].Length)).ToArray();
            foreach (var row in rows)
                await Console.Out.WriteLineAsync(string.Join("  ", row.Select((cell, column) => column < widths.Length ? cell.PadRight(widths[column]) : cell)).TrimEnd());
        }
        await Console.Error.WriteLineAsync(rows.Length == 1 ? "No jobs." : $"{rows.Length - 1} {(rows.Length == 2 ? "job" : "jobs")}.");
        return 0;
    }

    private static async Task<int> CancelAsync(ServerClient client, string id, bool asJson, CancellationToken cancellationToken)
    {
        var status = await client.PostAsync($"models/jobs/{Uri.EscapeDataString(id)}/cancel", null, cancellationToken);
        if (asJson)
            await Console.Out.WriteLineAsync(Json(status));
        else
            await Console.Error.WriteLineAsync($"{Clean(Text(status, "gallery_element_name"))}: {Clean(Text(status, "message"))}");
        return 0;
    }

    private static string[] Row(JsonProperty job) =>
    [
        Clean(job.Name), Clean(Text(job.Value, "kind")), Short(Clean(Text(job.Value, "gallery_element_name"))), State(job.Value),
        string.Create(CultureInfo.InvariantCulture, $"{Math.Clamp(job.Value.GetProperty("progress").GetDouble(), 0, 100):0}%"), Short(Clean(Text(job.Value, "message"))),
    ];
}
