using System.Text;
using ModelHost.Agent.Metering;
using ModelHost.Tests.Gateway;

namespace ModelHost.Tests.Metering;

public sealed class SecondModelGuardTests
{
    [Fact]
    public void From_any_place_on_it_finds_the_second_model_and_nothing_else()
    {
        var json = new RandomJson(20260302);
        var (found, passed) = (0, 0);
        for (var round = 0; round < 20_000; round++)
        {
            var rest = json.Object()[1..];
            var text = $$"""{"first":{{json.Object(1)}},"model":"m"{{(rest.Trim() == "}" ? "" : ",")}}{{rest}}""";
            var bytes = Encoding.UTF8.GetBytes(text);
            var scanner = new ModelScanner();
            // shown up to a random place, as when a large body has been read so far
            var state = scanner.Scan(bytes.AsSpan(0, json.Random.Next(bytes.Length)), isFinal: false, out var consumed);
            if (scanner.Model is null || state != ScanState.Reading)
                continue;
            var guard = scanner.Guard();
            var second = false;
            for (var at = consumed; at < bytes.Length && !second;)
            {
                var piece = Math.Min(json.Random.Next(1, 12), bytes.Length - at);
                second = guard.Finds(bytes.AsSpan(at, piece));
                at += piece;
            }

            second.ShouldBe(RandomJson.Models(text).Count > 1, $"from {consumed} of {text}");
            _ = second ? found++ : passed++;
        }
        found.ShouldBeGreaterThan(500);
        passed.ShouldBeGreaterThan(500);
    }
}
