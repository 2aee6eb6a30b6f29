using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.RegularExpressions;
using ModelHost.TestKit;

namespace ModelHost.Benchmarks;

/// <summary>What one measurement found.</summary>
/// <param name="Rate">Requests or events per second.</param>
/// <param name="P50">Median time of a request in ms; 0: not measured.</param>
/// <param name="P99">99th percentile of it in ms.</param>
/// <param name="CpuMicroseconds">CPU time of the peer for each request or event.</param>
/// <param name="Errors">Requests that failed.</param>
internal sealed record Reading(double Rate, double P50, double P99, double CpuMicroseconds, int Errors);

/// <summary>Load on a peer: requests from wrk, streams from this process.</summary>
internal static partial class Load
{
    /// <summary>As many requests as connections allow.</summary>
    public static async Task<Reading> WrkAsync(Peers peers, Peer peer, string body, int connections, int seconds)
    {
        var script = Path.GetTempFileName();
        await File.WriteAllTextAsync(script, $"""
            wrk.method = "POST"
            wrk.headers["Content-Type"] = "application/json"
            wrk.headers["Authorization"] = "Bearer {peers.Key(peer)}"
            wrk.body = [[{body}]]
            """);
        var before = peer.CpuTime();
        using var wrk = Process.Start(new ProcessStartInfo("wrk",
            ["-t1", $"-c{connections}", $"-d{seconds}s", "--latency", "-s", script, new Uri(peer.Url, "/v1/chat/completions").ToString()])
        { RedirectStandardOutput = true })!;
        var output = await wrk.StandardOutput.ReadToEndAsync();
        await wrk.WaitForExitAsync();
        File.Delete(script);
        var cpu = peer.CpuTime() - before;
        var requests = double.Parse(Requests().Match(output).Groups["n"].Value, CultureInfo.InvariantCulture);
        var errors = Errors().Matches(output).Sum(match => int.Parse(match.Groups["n"].Value, CultureInfo.InvariantCulture));
        return new Reading(
            double.Parse(Rate().Match(output).Groups["n"].Value, CultureInfo.InvariantCulture),
            Milliseconds(output, "50"), Milliseconds(output, "99"), cpu.TotalMicroseconds / requests, errors);
    }

    /// <summary>Streams, one after the other on each connection; the rate is that of events.</summary>
    /// <param name="peers">Whose key is sent.</param>
    /// <param name="peer">Who is asked.</param>
    /// <param name="streams">How many at once.</param>
    /// <param name="seconds">How long.</param>
    /// <param name="tokens">Length of each.</param>
    public static async Task<Reading> StreamsAsync(Peers peers, Peer peer, int streams, int seconds, int tokens = 256)
    {
        using var client = new HttpClient(new SocketsHttpHandler { MaxConnectionsPerServer = streams }) { BaseAddress = peer.Url, Timeout = Timeout.InfiniteTimeSpan };
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", peers.Key(peer));
        using var end = new CancellationTokenSource(TimeSpan.FromSeconds(seconds));
        long events = 0;
        var errors = 0;
        var before = peer.CpuTime();
        var clock = Stopwatch.StartNew();
        await Task.WhenAll(Enumerable.Range(0, streams).Select(_ => Task.Run(async () =>
        {
            var buffer = new byte[64 * 1024];
            try
            {
                while (!end.IsCancellationRequested)
                {
                    using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions")
                    {
                        Content = JsonContent.Create(Api.Chat("bench/chat", stream: true, maxTokens: tokens)),
                    };
                    using var answer = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, end.Token);
                    if (!answer.IsSuccessStatusCode)
                        Interlocked.Increment(ref errors);
                    await using var body = await answer.Content.ReadAsStreamAsync(end.Token);
                    int read;
                    while ((read = await body.ReadAsync(buffer, end.Token)) > 0)
                        Interlocked.Add(ref events, System.MemoryExtensions.Count(buffer.AsSpan(0, read), "\n\n"u8));
                }
            }
            catch (OperationCanceledException)
            {
            }
            catch (Exception e) when (e is HttpRequestException or IOException)
            {
                Interlocked.Increment(ref errors);
            }
        })));
        var took = clock.Elapsed;
        return new Reading(events / took.TotalSeconds, 0, 0, (peer.CpuTime() - before).TotalMicroseconds / Math.Max(1, events), errors);
    }

    private static double Milliseconds(string output, string percentile)
    {
        var match = Regex.Match(output, $@"^\s+{percentile}%\s+(?<n>[0-9.]+)(?<unit>us|ms|s)\s*$", RegexOptions.Multiline);
        var value = double.Parse(match.Groups["n"].Value, CultureInfo.InvariantCulture);
        return match.Groups["unit"].Value switch { "us" => value / 1000, "ms" => value, _ => value * 1000 };
    }

    [GeneratedRegex(@"Requests/sec:\s+(?<n>[0-9.]+)")]
    private static partial Regex Rate();

    [GeneratedRegex(@"^\s+(?<n>[0-9]+) requests in", RegexOptions.Multiline)]
    private static partial Regex Requests();

    [GeneratedRegex(@"(connect|read|write|timeout) (?<n>[0-9]+)|Non-2xx or 3xx responses: (?<n>[0-9]+)")]
    private static partial Regex Errors();
}
