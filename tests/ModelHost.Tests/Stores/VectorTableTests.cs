using System.Text;
using ModelHost.Features.Stores;

namespace ModelHost.Tests.Stores;

public sealed class VectorTableTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(768)]
    public void After_any_changes_it_has_what_a_dictionary_has_and_finds_what_a_full_comparison_finds(int dimension)
    {
        var random = new Random(dimension);
        var table = new VectorTable(dimension);
        var expected = new Dictionary<string, (float[] Key, string Value)>();
        var pool = Enumerable.Range(0, 2500).Select(_ => Vector(random, dimension)).ToArray();
        for (var step = 0; step < 6000; step++)
        {
            var key = pool[random.Next(pool.Length)];
            if (random.Next(3) == 0)
            {
                table.Delete(key);
                expected.Remove(string.Join(' ', key));
            }
            else
            {
                table.Set(key, Encoding.UTF8.GetBytes($"{step}"));
                expected[string.Join(' ', key)] = (key, $"{step}");
            }
        }
        var query = Vector(random, dimension);

        table.Count.ShouldBe(expected.Count);
        table.Bytes.ShouldBe(expected.Values.Sum(entry => (dimension * 4L) + entry.Value.Length + VectorTable.RowOverhead));
        table.Get(pool).Select(match => Encoding.UTF8.GetString(match.Value)).ShouldBe(
            expected.Values.OrderBy(entry => entry.Key, Comparer<float[]>.Create((a, b) => a.AsSpan().SequenceCompareTo(b))).Select(entry => entry.Value));
        var nearest = table.Find(query, 25);
        var best = expected.Values.Select(entry => Cosine(entry.Key, query)).OrderDescending().Take(25).ToArray();
        nearest.Select(match => (double)match.Similarity).Zip(best).ShouldAllBe(pair => Math.Abs(pair.First - pair.Second) < 1e-5);
        nearest.ShouldAllBe(match => expected[string.Join(' ', match.Key)].Value == Encoding.UTF8.GetString(match.Value));
        foreach (var entry in expected.Values)
            table.Delete(entry.Key);
        (table.Count, table.Bytes, table.Find(query, 3).Length).ShouldBe((0, 0, 0));
    }

    [Theory]
    [InlineData(1e38f)]
    [InlineData(1e20f)]
    [InlineData(1f)]
    [InlineData(1e-20f)]
    [InlineData(1e-38f)]
    public void Numbers_whose_squares_are_no_floats_are_compared_all_the_same(float size)
    {
        var table = new VectorTable(2);
        foreach (var (key, value) in (((float[], string)[])[([size, 0], "same"), ([size, size], "near"), ([0, size], "across"), ([-size, 0], "against"), ([0, 0], "nothing")]))
            table.Set(key, Encoding.UTF8.GetBytes(value));

        var found = table.Find([2 / size > 1e38f ? 1e-30f : 2, 0], 5);

        found.Select(match => Encoding.UTF8.GetString(match.Value)).ShouldBe(["same", "near", "nothing", "across", "against"]);
        found.Select(match => MathF.Round(match.Similarity, 4)).ShouldBe([1, 0.7071f, 0, 0, -1]);
    }

    private static float[] Vector(Random random, int dimension) => [.. Enumerable.Range(0, dimension).Select(_ => (random.NextSingle() * 2) - 1)];

    private static double Cosine(float[] a, float[] b) =>
        a.Zip(b).Sum(pair => (double)pair.First * pair.Second) / Math.Sqrt(a.Sum(x => (double)x * x) * b.Sum(x => (double)x * x));
}
