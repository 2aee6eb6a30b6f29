using System.Diagnostics;
using System.Globalization;
using ModelHost.Core.Galleries;
using ModelHost.TestKit;

namespace ModelHost.Benchmarks;

/// <summary>How long an index of models takes to be read, for the first time and again, and what it costs in memory.</summary>
internal static class GalleryReading
{
    private const int Again = 50;

    /// <summary>Runs it in this process.</summary>
    public static int Run(int entries)
    {
        var text = LargeGallery.Text(entries);
        var before = GC.GetTotalMemory(forceFullCollection: true);
        var allocated = GC.GetAllocatedBytesForCurrentThread();
        var (cpu, first) = (Environment.CpuUsage.TotalTime, Read(text, entries, out var index));
        var spent = (Environment.CpuUsage.TotalTime - cpu).TotalMilliseconds;
        allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;
        var held = GC.GetTotalMemory(forceFullCollection: true) - before;
        GC.KeepAlive(index);
        var again = Enumerable.Range(0, Again).Select(run => Read(text, entries, out _)).Order().ToArray();
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"""
            {Environment.ProcessorCount} cores, .NET {Environment.Version}; {entries} entries, {text.Length / 1e6:0.0} MB
            first reading: {first:0} ms, {spent:0} ms of processors; again, {Again} times: p50 {again[Again / 2]:0} ms, worst {again[^1]:0} ms
            memory: {allocated / 1e6:0} MB taken while it is read, {held / 1e6:0.0} MB held then
            """));
        return 0;
    }

    private static double Read(string text, int entries, out GalleryIndex index)
    {
        var clock = Stopwatch.StartNew();
        index = GalleryIndex.Parse(new StringReader(text));
        var took = clock.Elapsed.TotalMilliseconds;
        return index.Entries.Count == entries ? took : throw new InvalidOperationException("entries are missing");
    }
}
