using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Numerics.Tensors;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Features.Stores;
using ModelHost.TestKit;

namespace ModelHost.Benchmarks;

/// <summary>A vector store of embeddings: how long a search takes, in the store and through HTTP, beside the time in which memory can be read at all, and what it holds.</summary>
internal static class Stores
{
    private const int Batch = 500;
    private const int Searches = 200;
    private const int TopK = 10;

    /// <summary>Runs it in this process; the vectors are of a fixed seed.</summary>
    public static async Task<int> RunAsync(int vectors, int dimension)
    {
        await using var host = await ControlPlane.StartAsync();
        var service = host.Services.GetRequiredService<StoreService>();
        var random = new Random(7);
        float[] Vector() => [.. Enumerable.Range(0, dimension).Select(_ => (random.NextSingle() * 2) - 1)];

        var idle = Resident();
        var clock = Stopwatch.StartNew();
        for (var i = 0; i < vectors; i += Batch)
        {
            var keys = Enumerable.Range(0, Math.Min(Batch, vectors - i)).Select(_ => Vector()).ToArray();
            if (await service.SetAsync(new StoreSet { Keys = keys, Values = [.. keys.Select((_, n) => $"document {i + n}")] }, default) is { } failure)
                throw new InvalidOperationException(failure.Detail);
        }
        var filled = clock.Elapsed;
        var raw = (long)vectors * dimension * sizeof(float);
        var held = Resident() - idle;

        var queries = Enumerable.Range(0, Searches).Select(_ => Vector()).ToArray();
        var inStore = await MeasureAsync(queries, async query => (await service.FindAsync(new StoreFind { Key = query, Topk = TopK }, default)).Match(found => found.Length, _ => 0));
        var overHttp = await MeasureAsync(queries, async query =>
        {
            using var answer = await host.Client.PostAsJsonAsync("/stores/find", new { key = query, topk = TopK });
            return (await answer.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("values").GetArrayLength();
        });
        var floor = Floor(vectors, dimension);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"""
            {Environment.ProcessorCount} cores, .NET {Environment.Version}; {vectors} vectors of {dimension}, {raw / 1e6:0} MB of numbers
            set, {Batch} at a time, each on the disk before the next: {filled.TotalSeconds:0.0} s
            find, top {TopK}, in the store: p50 {inStore.P50:0.0} ms, p99 {inStore.P99:0.0} ms
            find, top {TopK}, over HTTP: p50 {overHttp.P50:0.0} ms, p99 {overHttp.P99:0.0} ms
            reading as many numbers with all cores and doing nothing else: p50 {floor:0.0} ms, {raw / floor / 1e6:0.0} GB/s
            memory: {held / 1e6:0} MB more than before, {held / (double)raw:0.00} of the numbers
            """));
        return 0;
    }

    private static async Task<(double P50, double P99)> MeasureAsync(float[][] queries, Func<float[], Task<int>> search)
    {
        var took = new List<double>();
        foreach (var query in queries)
        {
            var clock = Stopwatch.StartNew();
            if (await search(query) != TopK)
                throw new InvalidOperationException("a search found too few");
            took.Add(clock.Elapsed.TotalMilliseconds);
        }
        took.Sort();
        return (took[took.Count / 2], took[took.Count * 99 / 100]);
    }

    /// <summary>What no search that looks at every number can beat here.</summary>
    private static double Floor(int vectors, int dimension)
    {
        var cores = Environment.ProcessorCount;
        var parts = Enumerable.Range(0, cores).Select(_ => new float[(long)vectors * dimension / cores]).ToArray();
        Array.ForEach(parts, part => part.AsSpan().Fill(1));
        var took = new List<double>();
        for (var i = 0; i < Searches; i++)
        {
            var clock = Stopwatch.StartNew();
            Parallel.For(0, cores, part => TensorPrimitives.Sum(parts[part]));
            took.Add(clock.Elapsed.TotalMilliseconds);
        }
        took.Sort();
        return took[took.Count / 2];
    }

    private static long Resident()
    {
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        GC.WaitForPendingFinalizers();
        return File.ReadLines("/proc/self/status").First(line => line.StartsWith("VmRSS:", StringComparison.Ordinal)) is var line
            ? long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) * 1024 : 0;
    }
}
