using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Galleries;

/// <summary>An installation whose process is killed in the middle of it.</summary>
public sealed class KillTests
{
    private const int Size = 4_000_000, Held = 1_500_000;

    [Fact]
    public async Task An_install_goes_on_after_the_plug_was_pulled_and_the_hash_is_right()
    {
        var cancellationToken = TestContext.Current.CancellationToken;
        await using var server = await FileServer.StartAsync();
        var weights = server.Put("/w.gguf", FileServer.Bytes(Size));
        weights.HoldAfter = Held;
        using var node = new TestNode();
        string uuid;
        await using (var host = await ModelHostProcess.ServeAsync(node, 0))
        {
            using var client = new HttpClient { BaseAddress = host.Url };
            await client.NodeAsync("process");
            using var applied = await client.PostAsJsonAsync("/models/apply", new
            {
                name = "tiny",
                config_file = new { backend = "simulator" },
                files = new[] { new { filename = "w.gguf", uri = server.Url("/w.gguf"), sha256 = weights.Sha256 } },
            }, cancellationToken);
            applied.EnsureSuccessStatusCode();
            uuid = (await applied.Content.ReadFromJsonAsync<JsonElement>(cancellationToken)).GetProperty("uuid").GetString()!;
            await Deadline.UntilAsync(() => client.JsonAsync($"/models/jobs/{uuid}"), job => job.TryGetProperty("current_bytes", out var bytes) && bytes.GetInt64() >= Held / 2, 60);
            await host.KillAsync();
        }
        weights.Release();

        await using var again = await ModelHostProcess.ServeAsync(node, 0);
        using var reader = new HttpClient { BaseAddress = again.Url };
        var done = await Deadline.UntilAsync(() => reader.JsonAsync($"/models/jobs/{uuid}"), job => job.GetProperty("processed").GetBoolean(), 120);

        done.GetProperty("message").GetString().ShouldBe("completed", string.Join('\n', again.Output));
        Convert.ToHexStringLower(SHA256.HashData(await File.ReadAllBytesAsync(Path.Combine(node.Data, "models", "tiny", "w.gguf"), cancellationToken))).ShouldBe(weights.Sha256);
        var asked = server.Requests.Where(request => request.Path == "/w.gguf").ToArray();
        asked.Length.ShouldBe(2);
        asked[1].Range.ShouldStartWith("bytes=", customMessage: "what was there is not downloaded again");
        (await reader.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(1);
    }
}
