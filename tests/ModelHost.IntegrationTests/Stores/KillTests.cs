using System.Collections.Concurrent;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Stores;

/// <summary>A vector store whose process is killed while it is written to.</summary>
public sealed class KillTests
{
    private const int Writers = 8;
    private const int Rounds = 3;

    [Fact]
    public async Task Nothing_acknowledged_is_lost_when_the_plug_is_pulled()
    {
        using var node = new TestNode();
        // by key: the value that was acknowledged last, and one that was asked for behind it and may be there or not
        var acknowledged = new ConcurrentDictionary<int, string>();
        var asked = new ConcurrentDictionary<int, string>();
        for (var round = 0; round < Rounds; round++)
        {
            await using var host = await ModelHostProcess.ServeAsync(node, 0);
            using var client = new HttpClient { BaseAddress = host.Url };
            await CompareAsync(client, acknowledged, asked);
            var before = acknowledged.Count;

            var writers = Enumerable.Range(0, Writers).Select(writer => WriteAsync(client, writer, round, acknowledged, asked)).ToArray();
            await Deadline.UntilAsync(() => acknowledged.Count > before + 200, what: "changes to be acknowledged");
            await host.KillAsync();
            await Task.WhenAll(writers);
        }

        await using var last = await ModelHostProcess.ServeAsync(node, 0);
        using var reader = new HttpClient { BaseAddress = last.Url };
        await CompareAsync(reader, acknowledged, asked);
        acknowledged.Count.ShouldBeGreaterThan(Rounds * 200);
    }

    /// <summary>Sets new keys and replaces old ones, until the host is gone.</summary>
    private static async Task WriteAsync(HttpClient client, int writer, int round, ConcurrentDictionary<int, string> acknowledged, ConcurrentDictionary<int, string> asked)
    {
        for (var i = 0; ; i++)
        {
            var key = (i % 3 == 2 ? i / 2 : (round * 100_000) + i) * Writers + writer;
            var value = $"{round}-{writer}-{i}-{new string('x', i % 5 * 1000)}";
            asked[key] = value;
            try
            {
                using var answer = await client.PostAsJsonAsync("/stores/set", new { keys = new[] { new[] { key, 1 } }, values = new[] { value } });
                answer.EnsureSuccessStatusCode();
            }
            catch (HttpRequestException e) when (e.StatusCode is null)
            {
                return;
            }
            acknowledged[key] = value;
        }
    }

    private static async Task CompareAsync(HttpClient client, ConcurrentDictionary<int, string> acknowledged, ConcurrentDictionary<int, string> asked)
    {
        if (acknowledged.IsEmpty)
            return;
        using var answer = await client.PostAsJsonAsync("/stores/get", new { keys = asked.Keys.Select(key => new[] { key, 1 }) }, TestContext.Current.CancellationToken);
        answer.EnsureSuccessStatusCode();
        var found = await answer.Content.ReadFromJsonAsync<JsonElement>(TestContext.Current.CancellationToken);
        var values = found.GetProperty("keys").EnumerateArray().Select(key => key[0].GetInt32())
            .Zip(found.GetProperty("values").EnumerateArray().Select(value => value.GetString()!)).ToDictionary(pair => pair.First, pair => pair.Second);

        foreach (var (key, value) in acknowledged)
            values.GetValueOrDefault(key).ShouldBeOneOf(value, asked[key]);
        values.ShouldAllBe(pair => asked[pair.Key] == pair.Value || acknowledged.GetValueOrDefault(pair.Key) == pair.Value);
        foreach (var (key, value) in values)
            (acknowledged[key], asked[key]) = (value, value);
    }
}
