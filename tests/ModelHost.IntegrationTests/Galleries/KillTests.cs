using System.Net.Http.Json;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.Data.Sqlite;
using ModelHost.Features.Galleries;
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

    [Fact]
    public async Task A_backend_goes_on_as_well_and_is_whole()
    {
        var cancellationToken = TestContext.Current.CancellationToken;
        await using var server = await FileServer.StartAsync();
        var noise = FileServer.Bytes(Size);
        var archive = server.Put("/b.tar", Archives.Tar(Archives.File("run.sh", "#!/bin/sh\nexit 0\n", UnixFileMode.UserRead | UnixFileMode.UserExecute), Archives.File("lib.bin", noise)));
        archive.HoldAfter = Held;
        server.Put("/index.yaml", System.Text.Encoding.UTF8.GetBytes($"- {{name: small, version: '1.0', uri: '{server.Url("/b.tar")}', sha256: {archive.Sha256}}}\n"));
        string[] configuration = ["Galleries:Backends:0:Name=own", $"Galleries:Backends:0:Url={server.Url("/index.yaml")}"];
        using var node = new TestNode();
        string uuid;
        await using (var host = await ModelHostProcess.ServeAsync(node, 0, configuration))
        {
            using var client = new HttpClient { BaseAddress = host.Url };
            await client.NodeAsync("process");
            using var applied = await client.PostAsJsonAsync("/backends/apply", new { id = "small" }, cancellationToken);
            applied.EnsureSuccessStatusCode();
            uuid = (await applied.Content.ReadFromJsonAsync<JsonElement>(cancellationToken)).GetProperty("id").GetString()!;
            // on its way to the disk: the staged file has grown
            await Deadline.UntilAsync(() => Task.FromResult(Staged(node)), bytes => bytes >= Held / 2, 60, "half of it to be on the disk");
            await host.KillAsync();
        }
        Directory.Exists(Path.Combine(node.Data, "backends", "small")).ShouldBeFalse("nothing half-done is in its place");
        archive.Release();

        await using var again = await ModelHostProcess.ServeAsync(node, 0, configuration);
        using var reader = new HttpClient { BaseAddress = again.Url };
        var done = await Deadline.UntilAsync(() => reader.JsonAsync($"/backends/jobs/{uuid}"), job => job.GetProperty("processed").GetBoolean(), 120);

        done.GetProperty("message").GetString().ShouldBe("completed", string.Join('\n', again.Output));
        (await File.ReadAllBytesAsync(Path.Combine(node.Data, "backends", "small", "lib.bin"), cancellationToken)).AsSpan().SequenceEqual(noise).ShouldBeTrue();
        File.GetUnixFileMode(Path.Combine(node.Data, "backends", "small", "run.sh")).HasFlag(UnixFileMode.UserExecute).ShouldBeTrue();
        server.Requests.Where(request => request.Path == "/b.tar").Last().Range.ShouldStartWith("bytes=", customMessage: "what was there is not downloaded again");
        (await reader.JsonAsync("/backends")).EnumerateArray().ShouldHaveSingleItem().GetProperty("Name").GetString().ShouldBe("small");
    }

    [Fact]
    public async Task Two_nodes_have_the_new_model_after_the_plug_was_pulled_before_either_had_put_it_in_its_place()
    {
        await using var pair = await NodePair.StartAsync();
        pair.New.HoldAfter = Held;
        var uuid = await pair.ApplyAsync(pair.New, "/new");
        await pair.PullingAsync(uuid, "/new", Held / 2);
        await pair.Host.KillAsync();
        pair.New.Release();
        // the agent goes on alone, and holds what it has
        await Deadline.UntilAsync(() => File.Exists(Path.Combine(pair.Folders[1], "..", ".staging", "tiny", "tree", ".modelhost.json")), 120, "the agent to have all of it");
        pair.Has(pair.Old);

        await pair.ServeAsync();
        var done = await Deadline.UntilAsync(() => pair.JobAsync(uuid), job => job.GetProperty("processed").GetBoolean(), 120);

        done.GetProperty("message").GetString().ShouldBe("completed", string.Join('\n', pair.Host.Output));
        pair.Has(pair.New);
    }

    [Fact]
    public async Task Two_nodes_have_the_new_model_after_the_plug_was_pulled_between_them()
    {
        var cancellationToken = TestContext.Current.CancellationToken;
        RuntimeHelpers.RunModuleConstructor(typeof(GalleryOptions).Module.ModuleHandle); // which finds SQLite
        await using var pair = await NodePair.StartAsync();
        string uuid;
        // nothing can be written down, so that the job stops just before it lets the nodes go on
        await using (var database = new SqliteConnection($"Data Source={Path.Combine(pair.Local.Data, "modelhost.db")};Pooling=False"))
        {
            pair.New.HoldAfter = Held;
            uuid = await pair.ApplyAsync(pair.New, "/new");
            await pair.PullingAsync(uuid, "/new", Held / 2);
            await database.OpenAsync(cancellationToken);
            await using var block = database.BeginTransaction(System.Data.IsolationLevel.Serializable, deferred: false);
            pair.New.Release();
            await Deadline.UntilAsync(() => pair.JobAsync(uuid), job => job.TryGetProperty("committed", out _), 60, "both nodes to have it");
            pair.Has(pair.Old);
            pair.Agent.Signal("STOP");
        }
        await Deadline.UntilAsync(() => FolderText.Bytes(Path.Combine(pair.Folders[0], "w.gguf")).AsSpan().SequenceEqual(pair.New.Content), 60, "the local node to have it in its place");
        File.ReadAllBytes(Path.Combine(pair.Folders[1], "w.gguf")).AsSpan().SequenceEqual(pair.Old.Content).ShouldBeTrue();
        await pair.Host.KillAsync();
        pair.Agent.Signal("CONT");

        await pair.ServeAsync();
        using var refused = await pair.Client.PostAsync($"/models/jobs/{uuid}/cancel", null, cancellationToken);
        var done = await Deadline.UntilAsync(() => pair.JobAsync(uuid), job => job.GetProperty("processed").GetBoolean(), 120);

        done.GetProperty("message").GetString().ShouldBe("completed", string.Join('\n', pair.Host.Output));
        refused.StatusCode.ShouldBe(System.Net.HttpStatusCode.Conflict);
        pair.Has(pair.New);
        (await pair.Client.JsonAsync("/api/deployments")).GetArrayLength().ShouldBe(2);
    }

    private static long Staged(TestNode node)
    {
        var folder = Path.Combine(node.Data, "backends", ".staging");
        try
        {
            return Directory.Exists(folder) ? new DirectoryInfo(folder).EnumerateFiles("*", SearchOption.AllDirectories).Select(file => file.Length).DefaultIfEmpty().Max() : 0;
        }
        catch (IOException)
        {
            return 0; // one of them was renamed meanwhile
        }
    }
}
