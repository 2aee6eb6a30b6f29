using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.RegularExpressions;
using ModelHost.TestKit;

namespace ModelHost.Benchmarks;

/// <summary>What the gateway adds to a request, beside its peers. Load comes from wrk and from streaming clients in this process.</summary>
internal static partial class GatewayBenchmark
{
    // The host's code is compiled anew, in the background, for about ten seconds of full load: measured earlier, it shows half its speed.
    private const int WarmUpSeconds = 15;

    private const string Short = """{"model":"bench/chat","max_tokens":16,"messages":[{"role":"user","content":"Tell me something about the harbour."}]}""";

    /// <summary>Runs all measurements in turns, so that a slow moment of the machine hits everybody, and prints medians.</summary>
    public static async Task<int> RunAsync(int seconds, int rounds)
    {
        await using var peers = await Peers.StartAsync();
        Console.WriteLine($"{Environment.ProcessorCount} cores, {Cpu()}, .NET {Environment.Version}, {seconds} s x {rounds} rounds\n");
        Console.WriteLine("idle memory, MiB: " + string.Join(", ", peers.All.Skip(1).Select(peer => $"{peer.Name} {peer.MemoryMib():0}")));
        foreach (var peer in peers.All)
            await WrkAsync(peers, peer, Short, 32, WarmUpSeconds);

        Print("32 connections, short chats", "requests/s", peers, await MeasureAsync(peers, rounds, peer => WrkAsync(peers, peer, Short, 32, seconds)), row => row.Rate, cpu: true);
        var alone = await MeasureAsync(peers, rounds, peer => WrkAsync(peers, peer, Short, 1, seconds));
        Print("1 connection, short chats", "p50 ms", peers, alone, row => row.P50);
        Print("1 connection, short chats", "p99 ms", peers, alone, row => row.P99);
        var prompt = $$"""{"messages":[{"role":"user","content":"{{new string('x', 400_000)}}"}],"max_tokens":1,"model":"bench/chat"}""";
        Print("8 connections, prompts of 400 kB", "requests/s", peers, await MeasureAsync(peers, rounds, peer => WrkAsync(peers, peer, prompt, 8, seconds)), row => row.Rate, cpu: true);
        Print("32 streams", "events/s", peers, await MeasureAsync(peers, rounds, peer => StreamsAsync(peers, peer, 32, seconds)), row => row.Rate, cpu: true);
        Console.WriteLine("memory after all that, MiB: " + string.Join(", ", peers.All.Skip(1).Select(peer => $"{peer.Name} {peer.MemoryMib():0}")));
        return 0;
    }

    private static async Task<Dictionary<Peer, List<Reading>>> MeasureAsync(Peers peers, int rounds, Func<Peer, Task<Reading>> measure)
    {
        var readings = peers.All.ToDictionary(peer => peer, _ => new List<Reading>());
        for (var round = 0; round < rounds; round++)
        {
            foreach (var peer in peers.All)
                readings[peer].Add(await measure(peer));
        }
        return readings;
    }

    private static void Print(
        string title, string unit, Peers peers, Dictionary<Peer, List<Reading>> readings, Func<Reading, double> figure, bool cpu = false)
    {
        var reference = Median(readings[peers.Reference].Select(figure));
        var referenceCpu = Median(readings[peers.Reference].Select(r => r.CpuMicroseconds));
        Console.WriteLine($"### {title}\n\n| | {unit} | of bare YARP |{(cpu ? " CPU µs each | of bare YARP |" : "")} errors |\n|---|---|---|{(cpu ? "---|---|" : "")}---|");
        foreach (var peer in peers.All)
        {
            var value = Median(readings[peer].Select(figure));
            var cost = Median(readings[peer].Select(r => r.CpuMicroseconds));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"| {peer.Name} | {value:0.##} | {value / reference:0.00} |{(cpu ? peer.Name == "direct" ? " | |" : $" {cost:0.0} | {cost / referenceCpu:0.00} |" : "")} {readings[peer].Sum(r => r.Errors)} |"));
        }
        Console.WriteLine();
    }

    private static async Task<Reading> WrkAsync(Peers peers, Peer peer, string body, int connections, int seconds)
    {
        var script = Path.GetTempFileName();
        await File.WriteAllTextAsync(script, $"""
            wrk.method = "POST"
            wrk.headers["Content-Type"] = "application/json"
            wrk.headers["Authorization"] = "Bearer {peers.EngineKey}"
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

    private static async Task<Reading> StreamsAsync(Peers peers, Peer peer, int streams, int seconds)
    {
        using var client = new HttpClient(new SocketsHttpHandler { MaxConnectionsPerServer = streams }) { BaseAddress = peer.Url, Timeout = Timeout.InfiniteTimeSpan };
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", peers.EngineKey);
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
                        Content = JsonContent.Create(Api.Chat("bench/chat", stream: true, maxTokens: 256)),
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

    private static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[(sorted.Length / 2) - 1] + sorted[sorted.Length / 2]) / 2;
    }

    private static string Cpu() =>
        File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?.Split(':', 2)[1].Trim() ?? "unknown CPU";

    private sealed record Reading(double Rate, double P50, double P99, double CpuMicroseconds, int Errors);

    [GeneratedRegex(@"Requests/sec:\s+(?<n>[0-9.]+)")]
    private static partial Regex Rate();

    [GeneratedRegex(@"^\s+(?<n>[0-9]+) requests in", RegexOptions.Multiline)]
    private static partial Regex Requests();

    [GeneratedRegex(@"(connect|read|write|timeout) (?<n>[0-9]+)|Non-2xx or 3xx responses: (?<n>[0-9]+)")]
    private static partial Regex Errors();
}
