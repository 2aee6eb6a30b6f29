using System.Text.Json;
using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Agent.Metering;
using ModelHost.Agent.Proxy;
using ModelHost.Agent.Service;
using ModelHost.Core.Access;
using ModelHost.Data;
using ModelHost.Features.ApiKeys;
using ModelHost.Features.Nodes;
using ModelHost.Features.Usage;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Deployments;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Usage;

/// <summary>What nodes tell of direct requests, as the control plane books it.</summary>
public sealed class NodeUsageTests : IDisposable
{
    private readonly string _data = Directory.CreateTempSubdirectory("mh-").FullName;
    private readonly LogLines _log = new();
    private readonly ILoggerFactory _loggers;

    public NodeUsageTests() => _loggers = LoggerFactory.Create(logging => logging.AddProvider(_log));

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Requests, answers and acknowledgements are lost, and both sides are restarted, in any order.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Everything_is_booked_once_whatever_is_lost(int seed)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var (node, uid) = await NodeAsync(host);
        var (journal, usage, random, loses) = (Journal(), Usage(host), new Random(seed), 0);
        node.Usage = request =>
        {
            if (loses == 1)
                throw new IOException("the request was lost");
            var reply = journal.Next(request).Clone();
            return loses == 2 ? throw new IOException("the answer was lost") : reply;
        };

        var used = default(UsageCount);
        for (var step = 0; step < 150; step++)
        {
            switch (random.Next(6))
            {
                case 0 or 1:
                    var count = new UsageCount(1, random.Next(2), 0, random.Next(100), random.Next(100));
                    journal.Add(uid, default, count);
                    used += count;
                    break;
                case 2:
                    journal.Flush();
                    journal = Journal();
                    break;
                case 3:
                    usage = Usage(host);
                    break;
                default:
                    loses = random.Next(4);
                    await CollectAsync(usage, node, mayFail: loses is 1 or 2);
                    break;
            }
        }
        loses = 0;
        while (journal.IsWaiting)
            await CollectAsync(usage, node);

        Sums(await TotalAsync(host)).ShouldBe((used.Requests, used.Aborted, used.PromptTokens, used.CompletionTokens));
        used.Requests.ShouldBeGreaterThan(20);
    }

    [Fact]
    public async Task It_stands_under_the_key_and_the_deployment_also_when_they_are_gone()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var (node, uid) = await NodeAsync(host);
        var (_, id, _) = await host.Client.MakeKeyAsync("""{"label":"mine"}""");
        var (_, goneId, _) = await host.Client.MakeKeyAsync("""{"label":"gone"}""");
        var (caller, gone) = (Caller(host, id), Caller(host, goneId));
        var (journal, usage) = (Journal(), Usage(host));
        node.Usage = journal.Next;
        journal.Add(uid, caller, new UsageCount(1, 0, 0, 7, 5));
        journal.Add(uid, gone, new UsageCount(1, 0, 0, 1, 1));
        (await host.Client.KeysAsync("DELETE", $"/{goneId}")).EnsureSuccessStatusCode();
        var deployment = (await DbAsync(host, db => db.Deployments.SingleAsync(d => d.Uid == uid, Ct))).Id;
        (await host.Client.DeleteAsync(new Uri($"/api/deployments/{deployment}", UriKind.Relative), Ct)).EnsureSuccessStatusCode();

        await CollectAsync(usage, node);

        var rows = (await host.Client.JsonAsync("/api/usage?group_by=key,deployment,owner")).GetProperty("data").EnumerateArray()
            .Select(row => (row.Text("key_label"), row.GetProperty("key_id").GetInt32(), row.Text("deployment_uid"), row.GetProperty("deployment_id").GetInt32(), row.Text("model"), row.Text("owner"), row.GetProperty("total_tokens").GetInt64()));
        rows.ShouldBe([("mine", id, uid, deployment, "served", "tests", 12), ("gone", goneId, uid, deployment, "served", "tests", 2)]);
        host.Services.GetRequiredService<ApiKeyRing>().Keys[id].LastUse.At.ShouldNotBeNull();
        host.Services.GetRequiredService<UsageBook>().Total(uid).ShouldBe((8, 6));
        var page = await host.Client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct);
        page.ShouldContain($"modelhost_usage_requests_total{{deployment=\"{uid}\",via=\"direct\"}} 2\n");
        page.ShouldContain($"modelhost_usage_tokens_total{{deployment=\"{uid}\",kind=\"prompt\",via=\"direct\"}} 8\n");
    }

    [Fact]
    public async Task What_cannot_be_is_refused_by_its_reason_and_not_asked_for_again()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var (node, uid) = await NodeAsync(host);
        var other = await DbAsync(host, async db =>
        {
            var elsewhere = new Node { Uid = "elsewhere", Hostname = "elsewhere", IpAddress = "127.0.0.3" };
            db.Nodes.Add(elsewhere);
            await db.SaveChangesAsync(Ct);
            db.Tombstones.Add(new Features.Deployments.Tombstone { Uid = Guid.NewGuid().ToString(), NodeId = elsewhere.Id });
            await db.SaveChangesAsync(Ct);
            return db.Tombstones.Single().Uid;
        });
        var (_, id, _) = await host.Client.MakeKeyAsync();
        var mark = Caller(host, id).KeyMark;
        (DirectUsage Entry, string Reason)[] bad =
        [
            (new() { DeploymentUid = uid, Requests = -1 }, "figures"),
            (new() { DeploymentUid = uid, Requests = 1, PromptTokens = -1 }, "figures"),
            (new() { DeploymentUid = uid, Requests = 1, CompletionTokens = long.MaxValue }, "figures"),
            (new() { DeploymentUid = uid, Requests = 1, Aborted = 2 }, "figures"),
            (new() { DeploymentUid = uid, Requests = 1, Failed = long.MinValue }, "figures"),
            (new() { DeploymentUid = uid, Requests = 1, PromptTokens = UsageCount.Most }, "sum of the day"),
            (new() { DeploymentUid = other, Requests = 1 }, "none of the node's"),
            (new() { DeploymentUid = Guid.NewGuid().ToString(), Requests = 1 }, "none of the node's"),
            (new() { DeploymentUid = "", Requests = 1 }, "none of the node's"),
            (new() { DeploymentUid = "'; DROP TABLE Usage; --\0", Requests = 1 }, "none of the node's"),
            (new() { DeploymentUid = new string('x', 1_000_000), Requests = 1 }, "none of the node's"),
            (new() { DeploymentUid = uid, KeyId = id, KeyMark = mark + 1, Requests = 1 }, "API key"),
            (new() { DeploymentUid = uid, KeyId = 4711, KeyMark = mark, Requests = 1 }, "API key"),
            (new() { DeploymentUid = uid, KeyId = -1, Requests = 1 }, "API key"),
        ];
        var (asked, usage) = (new List<long>(), Usage(host));

        foreach (var (i, (entry, reason)) in bad.Index())
        {
            var batch = new UsageBatch { Sequence = i + 1, Entries = { new DirectUsage { DeploymentUid = uid, Requests = 1, PromptTokens = 3, LastAt = double.NaN }, entry } };
            node.Usage = request =>
            {
                asked.Add(request.Booked);
                return new UsageReply { Journal = "j", Batch = request.Booked == batch.Sequence ? null : batch };
            };
            await CollectAsync(usage, node);
            await CollectAsync(usage, node);

            Sums(await TotalAsync(host)).ShouldBe((i + 1, 0, 3 * (i + 1), 0), reason);
            _log.All.Count.ShouldBe(i + 1);
            _log.All[i].ShouldContain(reason);
        }

        asked.ShouldBe(Enumerable.Range(0, bad.Length).SelectMany(i => (long[])[i, i + 1]));
        var crowd = new UsageBatch { Sequence = 100 };
        crowd.Entries.AddRange(Enumerable.Range(0, NodeMethods.MaxUsageEntries + 1).Select(_ => new DirectUsage { DeploymentUid = uid, Requests = 1 }));
        node.Usage = request => new UsageReply { Journal = "j", Batch = request.Booked == 100 ? null : crowd };
        await CollectAsync(usage, node);
        await CollectAsync(usage, node);
        _log.All[^1].ShouldContain("too many");
        Sums(await TotalAsync(host)).Requests.ShouldBe(bad.Length);
    }

    [Theory]
    [InlineData("", 1, "no name")]
    [InlineData("a name that is longer than any that there is, of sixty-five letters", 1, "too long")]
    [InlineData("j", 0, "number 0")]
    [InlineData("j", -5, "number -5")]
    [InlineData("j", 7, "booked before")]
    public async Task An_answer_without_sense_is_told_of_once(string journal, long sequence, string reason)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var (node, uid) = await NodeAsync(host);
        var (usage, asked) = (Usage(host), 0);
        node.Usage = _ => new UsageReply { Journal = "j", Batch = new UsageBatch { Sequence = 7 } };
        await CollectAsync(usage, node);
        node.Usage = _ =>
        {
            asked++;
            return new UsageReply { Journal = journal, Batch = new UsageBatch { Sequence = sequence, Entries = { new DirectUsage { DeploymentUid = uid, Requests = 1 } } } };
        };

        for (var i = 0; i < 3; i++)
            await CollectAsync(usage, node);

        asked.ShouldBe(1);
        _log.All.ShouldHaveSingleItem().ShouldContain(reason);
        Sums(await TotalAsync(host)).Requests.ShouldBe(0);
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(-38, -38)] // a day less than the oldest: midnight may pass meanwhile
    [InlineData(-40, 0)]
    [InlineData(1, 0)]
    [InlineData(-20_000, 0)]
    [InlineData(int.MaxValue - 30_000, 0)]
    public async Task A_day_that_a_wrong_clock_tells_is_today(int told, int booked)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var (node, uid) = await NodeAsync(host);
        var today = DateOnly.FromDateTime(host.Services.GetRequiredService<TimeProvider>().GetUtcNow().UtcDateTime);
        var day = today.DayNumber - DateOnly.FromDateTime(DateTime.UnixEpoch).DayNumber + told;
        node.Usage = _ => new UsageReply { Journal = "j", Batch = new UsageBatch { Sequence = 1, Entries = { new DirectUsage { DeploymentUid = uid, Day = day, Requests = 1 } } } };

        await CollectAsync(Usage(host), node);

        var stored = (await DbAsync(host, db => db.Usage.SingleAsync(Ct))).Day.DayNumber;
        // the day may end meanwhile
        stored.ShouldBeInRange(today.DayNumber + booked, today.DayNumber + booked + (booked == 0 ? 1 : 0));
    }

    /// <summary>After the database was lost, deployments are found again by what runs, and what was used waits for that.</summary>
    [Fact]
    public async Task Use_waits_for_a_deployment_that_is_found_again()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var (node, uid) = await NodeAsync(host);
        var (journal, usage) = (Journal(), Usage(host));
        node.Usage = journal.Next;
        journal.Add(uid, default, new UsageCount(1, 0, 0, 7, 5));
        await DbAsync(host, db => db.Deployments.Where(d => d.Uid == uid).ExecuteUpdateAsync(d => d.SetProperty(x => x.Uid, "lost"), Ct));
        var spec = (await DbAsync(host, db => db.Deployments.SingleAsync(Ct))).Spec;
        node.Says(new NodeReport { Engines = { new Engine { DeploymentUid = uid, RunId = "r", Phase = EnginePhase.Ready, LaunchSpec = spec } } });

        await CollectAsync(usage, node);
        Sums(await TotalAsync(host)).Requests.ShouldBe(0);
        await DbAsync(host, db => db.Deployments.Where(d => d.Uid == "lost").ExecuteUpdateAsync(d => d.SetProperty(x => x.Uid, uid), Ct));
        await CollectAsync(usage, node);

        Sums(await TotalAsync(host)).Requests.ShouldBe(1);
        _log.All.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("")]
    [InlineData("{}")]
    [InlineData("{\"version\":9999}")]
    public async Task What_others_used_does_not_wait_for_an_engine_of_which_no_deployment_can_be_made(string spec)
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var (node, uid) = await NodeAsync(host);
        var (journal, usage) = (Journal(), Usage(host));
        node.Usage = journal.Next;
        journal.Add(uid, default, new UsageCount(1, 0, 0, 7, 5));
        journal.Add("strange", default, new UsageCount(1, 0, 0, 2, 2));
        node.Says(new NodeReport { Engines = { new Engine { DeploymentUid = "strange", RunId = "r", Phase = EnginePhase.Ready, LaunchSpec = spec } } });

        await CollectAsync(usage, node);

        Sums(await TotalAsync(host)).ShouldBe((1, 0, 7, 5));
        _log.All.Single().ShouldContain("1 entries of batch 1, the first because it is of a deployment that is none of the node's");
    }

    [Fact]
    public async Task A_control_plane_that_has_lost_its_database_books_what_was_not_acknowledged()
    {
        using var node = new TestNode();
        string uid;
        await using (var host = await ControlPlane.StartAsync(node))
        {
            var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process")));
            await host.Client.StatusAsync(id, "running");
            uid = (await DbAsync(host, db => db.Deployments.SingleAsync(Ct))).Uid;
        }
        var journal = new DirectJournal(node.Data, TimeProvider.System, NullLogger.Instance);
        journal.Add(uid, default, new UsageCount(1, 0, 0, 100, 100));
        journal.Next(new UsageRequest { Journal = journal.Next(new UsageRequest()).Journal, Booked = 1 }).Batch.ShouldBeNull();
        journal.Add(uid, default, new UsageCount(2, 0, 0, 7, 5));
        journal.Flush();
        SqliteConnection.ClearAllPools();
        foreach (var file in Directory.GetFiles(node.Data, "modelhost.db*"))
            File.Delete(file);

        await using var anew = await ControlPlane.StartAsync(node);
        await Deadline.UntilAsync(async () => Sums(await TotalAsync(anew)), sums => sums != default, 60, "what was used to be booked");
        var handle = anew.Services.GetRequiredService<NodeRegistry>().All.Single();
        for (var i = 0; i < 3; i++)
            await anew.Services.GetRequiredService<NodeUsage>().CollectAsync(handle, Ct);

        Sums(await TotalAsync(anew)).ShouldBe((2, 0, 7, 5));
        var found = (await DbAsync(anew, db => db.Deployments.SingleAsync(Ct))).Id;
        await anew.Client.StatusAsync(found, "running");
        await anew.Client.StopModelAsync(found);
    }

    [Fact]
    public async Task An_agent_that_keeps_no_journal_is_not_asked()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        await using var node = await ScriptedNode.LinkAsync(host, Ct);

        await node.PassAsync();

        node.Asked.ShouldNotContain(call => call.StartsWith("usage", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_node_that_cannot_tell_is_named_and_its_passes_go_on()
    {
        void Configure(IServiceCollection services)
        {
            ScriptedNode.WithoutLocalNode(services);
            services.AddLogging(logging => logging.AddProvider(_log));
        }

        await using var host = await ControlPlane.StartAsync(configure: Configure);
        await using var node = await ScriptedNode.LinkAsync(host, Ct);
        node.UsageFault = "its disk is full";

        async Task<IReadOnlyList<string>> PassedAsync()
        {
            await node.PassAsync();
            return _log.All;
        }

        await Deadline.UntilAsync(PassedAsync, lines => lines.Any(line => line.Contains($"A call to node {node.Id} failed; it is made again.", StringComparison.Ordinal)));
        var before = node.Passes;
        await node.PassAsync();

        node.Passes.ShouldBeGreaterThan(before);
    }

    public void Dispose()
    {
        _loggers.Dispose();
        Directory.Delete(_data, recursive: true);
    }

    private static async Task<(QuietNode Node, string Uid)> NodeAsync(ControlPlane host)
    {
        var node = await QuietNode.AddAsync(host);
        var deployment = await host.Client.RecordAsync(node.Id, 8101, "served");
        return (node, (await node.RowAsync(deployment)).Uid);
    }

    private DirectJournal Journal() => new(_data, TimeProvider.System, NullLogger.Instance);

    private NodeUsage Usage(ControlPlane host) => new(
        host.Services.GetRequiredService<Database>(), host.Services.GetRequiredService<UsageBook>(), host.Services.GetRequiredService<ApiKeyRing>(),
        host.Services.GetRequiredService<TimeProvider>(), _loggers.CreateLogger<NodeUsage>());

    private static DirectCaller Caller(ControlPlane host, int key) => new(key, KeyHash.Mark(host.Services.GetRequiredService<ApiKeyRing>().Keys[key].Hash));

    private static async Task CollectAsync(NodeUsage usage, QuietNode node, bool mayFail = false)
    {
        try
        {
            await usage.CollectAsync(node.Handle, Ct);
        }
        catch (IOException) when (mayFail)
        {
            // lost on its way
        }
    }

    private static async Task<T> DbAsync<T>(ControlPlane host, Func<ModelHostDbContext, Task<T>> with)
    {
        await using var db = await host.Services.GetRequiredService<Database>().OpenAsync(Ct);
        return await with(db);
    }

    private static async Task<JsonElement> TotalAsync(ControlPlane host) => (await host.Client.JsonAsync("/api/usage")).GetProperty("total");

    private static (long Requests, long Aborted, long Prompt, long Completion) Sums(JsonElement total)
    {
        long Read(string name) => total.GetProperty(name).GetInt64();
        return (Read("requests"), Read("aborted_requests"), Read("prompt_tokens"), Read("completion_tokens"));
    }
}
