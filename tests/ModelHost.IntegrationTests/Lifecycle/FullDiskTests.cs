using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Lifecycle;

/// <summary>A data folder on a disk of its own, which fills up.</summary>
public sealed class FullDiskTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Full_disk_is_named_changes_nothing_and_takes_no_model_away()
    {
        using var node = new TestNode();
        if (await RunAsync("mount", "-t", "tmpfs", "-o", "size=16m", "modelhost-test", node.Data) != 0)
            Assert.Skip("mounting a small disk needs root");
        try
        {
            await using (var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free()))
            {
                using var client = new HttpClient { BaseAddress = host.Url };
                var id = await client.StartModelAsync(Api.StartRequest(await client.NodeAsync("process"), model: "small/one"));
                await client.StatusAsync(id, "running");
                var filler = Path.Combine(node.Data, "filler");
                Fill(filler);

                await ShouldBeFullAsync(await client.PostAsync(new Uri($"/api/deployments/stop/{id}", UriKind.Relative), null, Ct));
                await ShouldBeFullAsync(await client.PostAsJsonAsync("/api/deployments/start", Api.StartRequest(await client.NodeAsync("process"), model: "small/two", port: 8201), Ct));

                using (var applied = await client.PostAsJsonAsync("/models/apply", new { id = "qwen3-8b" }, Ct))
                {
                    ((int)applied.StatusCode).ShouldBe(507);
                    (await applied.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("error").GetProperty("code").GetInt32().ShouldBe(507);
                }

                (await client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(1);
                using var chat = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("small/one"), Ct);
                chat.IsSuccessStatusCode.ShouldBeTrue();

                File.Delete(filler);
                (await client.PostAsync(new Uri($"/api/deployments/stop/{id}", UriKind.Relative), null, Ct)).IsSuccessStatusCode.ShouldBeTrue();
                await client.StatusAsync(id, "stopped");
                await host.StopAsync();
            }
        }
        finally
        {
            // whatever still runs there after a failure: that failure is what is to be told
            await RunAsync("umount", "--lazy", node.Data);
        }
    }

    private static void Fill(string path)
    {
        using var file = new FileStream(path, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 0);
        var block = new byte[64 * 1024];
        foreach (var size in (int[])[block.Length, 4096, 1])
        {
            try
            {
                while (true)
                    file.Write(block, 0, size);
            }
            catch (IOException)
            {
                // no room for a piece of this size
            }
        }
    }

    private static async Task ShouldBeFullAsync(HttpResponseMessage answer)
    {
        ((int)answer.StatusCode).ShouldBe(507);
        (await answer.Content.ReadFromJsonAsync<JsonElement>(Ct)).GetProperty("code").GetString().ShouldBe("storage.full");
    }

    private static async Task<int> RunAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true })!;
        await process.WaitForExitAsync(Ct);
        return process.ExitCode;
    }
}
