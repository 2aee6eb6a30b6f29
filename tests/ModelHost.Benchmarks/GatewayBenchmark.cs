using System.Globalization;

namespace ModelHost.Benchmarks;

/// <summary>What the gateway adds to a request, beside its peers.</summary>
internal static class GatewayBenchmark
{
    /// <summary>A short chat.</summary>
    public const string Short = """{"model":"bench/chat","max_tokens":16,"messages":[{"role":"user","content":"Tell me something about the harbour."}]}""";

    // The code of a .NET host is compiled anew, in the background, for ten and more seconds of full load: measured earlier, it shows half its speed.
    private const int WarmUpSeconds = 20;
    private const int OpenStreams = 1000;
    private const int MillisecondsPerToken = 200;

    /// <summary>Runs all measurements in turns, so that a slow moment of the machine hits everybody, and prints medians.</summary>
    /// <param name="seconds">Length of a measurement.</param>
    /// <param name="rounds">How often each is made.</param>
    /// <param name="remoteOnly">Whether only the gateway is measured, with and without an agent.</param>
    public static async Task<int> RunAsync(int seconds, int rounds, bool remoteOnly)
    {
        Console.WriteLine($"{Environment.ProcessorCount} cores, {Cpu()}, .NET {Environment.Version}, {seconds} s x {rounds} rounds\n");
        await using (var peers = await Peers.StartAsync(remoteOnly))
        {
            PrintOnce("start to first answer, s", peers, peer => peer.StartedIn.TotalSeconds);
            PrintOnce("memory when idle, MiB", peers, peer => peer.MemoryMib());
            foreach (var peer in peers.All)
                await Load.WrkAsync(peers, peer, Short, 32, WarmUpSeconds);
            Print("32 connections, short chats", "requests/s", peers, await MeasureAsync(peers, rounds, peer => Load.WrkAsync(peers, peer, Short, 32, seconds)), row => row.Rate, cpu: true);
            var alone = await MeasureAsync(peers, rounds, peer => Load.WrkAsync(peers, peer, Short, 1, seconds));
            Print("1 connection, short chats", "p50 ms", peers, alone, row => row.P50);
            Print("1 connection, short chats", "p99 ms", peers, alone, row => row.P99);
            var prompt = $$"""{"messages":[{"role":"user","content":"{{new string('x', 400_000)}}"}],"max_tokens":1,"model":"bench/chat"}""";
            Print("8 connections, prompts of 400 kB", "requests/s", peers, await MeasureAsync(peers, rounds, peer => Load.WrkAsync(peers, peer, prompt, 8, seconds)), row => row.Rate, cpu: true);
            Print("32 streams", "events/s", peers, await MeasureAsync(peers, rounds, peer => Load.StreamsAsync(peers, peer, 32, seconds)), row => row.Rate, cpu: true);
            PrintOnce("memory after all that, MiB", peers, peer => peer.MemoryMib());
        }
        await using (var peers = await Peers.StartAsync(remoteOnly, MillisecondsPerToken))
        {
            // whoever has not been asked before compiles what a stream needs
            foreach (var peer in peers.All)
                await Load.StreamsAsync(peers, peer, 32, WarmUpSeconds / 4, tokens: 8);
            var before = peers.All.ToDictionary(peer => peer, peer => peer.MemoryMib());
            // none of them ends before the time is over
            var open = await MeasureAsync(peers, 1, peer => Load.StreamsAsync(peers, peer, OpenStreams, 2 * seconds, 1000 * 4 * seconds / MillisecondsPerToken));
            Print($"{OpenStreams} open streams, an event every {MillisecondsPerToken} ms", "events/s", peers, open, row => row.Rate, cpu: true);
            PrintOnce($"memory for {OpenStreams} open streams, MiB", peers, peer => peer.MemoryMib() - before[peer]);
        }
        return 0;
    }

    private static void PrintOnce(string title, Peers peers, Func<Peer, double> figure)
    {
        var reference = figure(peers.Reference);
        Console.WriteLine($"### {title}\n\n| | | of {peers.Reference.Name} |\n|---|---|---|");
        foreach (var peer in peers.All.Skip(1))
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {peer.Name} | {figure(peer):0.##} | {figure(peer) / reference:0.00} |"));
        Console.WriteLine();
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
        Console.WriteLine($"### {title}\n\n| | {unit} | of {peers.Reference.Name} |{(cpu ? $" CPU µs each | of {peers.Reference.Name} |" : "")} errors |\n|---|---|---|{(cpu ? "---|---|" : "")}---|");
        foreach (var peer in peers.All)
        {
            var cost = cpu && peer != peers.All[0] ? $" {Cell(row => row.CpuMicroseconds)} |" : cpu ? " | |" : "";
            Console.WriteLine($"| {peer.Name} | {Cell(figure)} |{cost} {readings[peer].Sum(row => row.Errors)} |");

            // ratios are taken within a round, in which the machine was the same for both
            string Cell(Func<Reading, double> read) => string.Create(CultureInfo.InvariantCulture,
                $"{Median(readings[peer].Select(read)):0.##} | {Median(readings[peer].Zip(readings[peers.Reference], (mine, its) => read(mine) / read(its))):0.00}");
        }
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"\nThe remote node, of the local one: {OfLocal(figure):0.00}{(cpu ? $", CPU {OfLocal(row => row.CpuMicroseconds):0.00}" : "")}\n"));

        double OfLocal(Func<Reading, double> read) => Median(readings[peers.Remote].Zip(readings[peers.Gateway], (remote, local) => read(remote) / read(local)));
    }

    private static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[(sorted.Length / 2) - 1] + sorted[sorted.Length / 2]) / 2;
    }

    private static string Cpu() =>
        File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?.Split(':', 2)[1].Trim() ?? "unknown CPU";
}
