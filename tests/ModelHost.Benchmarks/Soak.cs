using System.Globalization;

namespace ModelHost.Benchmarks;

/// <summary>Hours in minutes: chats and streams at full rate, while the gateway's memory is watched.</summary>
internal static class Soak
{
    // A heap breathes by tens of MiB under full load; what leaks a byte a request at 5,000 requests/s has grown by more in ten minutes.
    private const double AllowedGrowth = 1.1;
    private const int ChatConnections = 24;
    private const int Streams = 8;
    private const int SecondsPerSlice = 15;
    private const int SettlingSlices = 4;

    /// <returns>0: no request failed and memory stayed where it was; else 1.</returns>
    public static async Task<int> RunAsync(int minutes)
    {
        await using var peers = await Peers.StartAsync(remoteOnly: false);
        var memory = new List<double>();
        var (requests, events, errors) = (0.0, 0.0, 0);
        for (var slice = 0; slice < SettlingSlices + (minutes * 60 / SecondsPerSlice); slice++)
        {
            // streams are cut where they are at the end of a slice, as clients do
            var streams = Load.StreamsAsync(peers, peers.Gateway, Streams, SecondsPerSlice);
            var chats = await Load.WrkAsync(peers, peers.Gateway, GatewayBenchmark.Short, ChatConnections, SecondsPerSlice);
            var streamed = await streams;
            var mib = peers.Gateway.MemoryMib();
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{slice * SecondsPerSlice,5} s  {chats.Rate:0} requests/s  {streamed.Rate:0} events/s  {chats.Errors + streamed.Errors} errors  {mib:0} MiB"));
            errors += chats.Errors + streamed.Errors;
            if (slice < SettlingSlices)
                continue;
            memory.Add(mib);
            requests += chats.Rate * SecondsPerSlice;
            events += streamed.Rate * SecondsPerSlice;
        }
        var quarter = memory.Count / 4;
        var (first, last) = (memory.Take(Math.Max(1, quarter)).Average(), memory.TakeLast(Math.Max(1, quarter)).Average());
        var isFlat = last <= first * AllowedGrowth;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{minutes} min: {requests:0} requests, {events:0} events, {errors} errors; memory {first:0} MiB in the first quarter, {last:0} MiB in the last: {(isFlat ? "flat" : "it grows")}"));
        return isFlat && errors == 0 ? 0 : 1;
    }
}
