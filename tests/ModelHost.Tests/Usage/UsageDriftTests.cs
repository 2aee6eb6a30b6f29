using System.Net.Http.Headers;
using System.Net.Http.Json;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Metering;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Features.Nodes;
using ModelHost.Features.Settings;
using ModelHost.Features.Usage;
using ModelHost.Protocol;
using ModelHost.TestKit;
using ModelHost.Tests.Reconcile;

namespace ModelHost.Tests.Usage;

/// <summary>What engines count and the gateway does not.</summary>
public sealed class UsageDriftTests
{
    private const string Uid = "uid-1";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_difference_is_counted_from_the_moment_a_run_is_seen_on()
    {
        await using var host = await ControlPlane.StartAsync(configure: ScriptedNode.WithoutLocalNode);
        var (drift, book) = (host.Services.GetRequiredService<UsageDrift>(), host.Services.GetRequiredService<UsageBook>());
        await using var node = new ScriptedNode();
        var handle = new NodeHandle(-1, node, host.Services.GetRequiredService<LiveSettings>(), "scripted");
        host.Services.GetRequiredService<NodeRegistry>().Add(handle);
        UsageDrift.Reading[] Compared(string run, double? prompt, double completion = 0)
        {
            var report = new NodeReport { NodeId = "n", Hostname = "n", Engines = { new Engine { DeploymentUid = Uid, RunId = run } } };
            if (prompt is { } tokens)
                report.Engines[0].Metrics = new EngineMetrics { PromptTokens = tokens, GenerationTokens = completion };
            handle.Heard(report, DateTimeOffset.UnixEpoch);
            drift.Compare();
            return [.. drift.Readings];
        }
        void Used(long prompt, long completion) => book.Add(UsageCaller.None,
            new ModelRoute(1, DeploymentStatus.Running, null, "m", [], "tests", DateTimeOffset.UnixEpoch, null, null) { DeploymentUid = Uid }, new UsageCount(1, 0, 0, prompt, completion));

        Compared("a", null).ShouldBeEmpty("it has not told its counts yet");
        Compared("a", 1000, 500).ShouldBe([new(Uid, 0, 0)], "what was before is not known");
        Used(30, 20);
        Compared("a", 1030, 520).ShouldBe([new(Uid, 0, 0)]);
        Compared("a", 1040, 523).ShouldBe([new(Uid, 10, 3)], "somebody else asked it");
        Used(10, 3);
        Compared("a", 1040, 523).ShouldBe([new(Uid, 0, 0)], "a request that was under way");
        Compared("b", 5, 5).ShouldBe([new(Uid, 0, 0)], "another run counts from its own beginning");
        Compared("b", 4, 1).ShouldBe([new(Uid, 0, 0)], "counters that went back begin anew");
    }

    [Fact]
    public async Task An_engine_that_is_asked_past_the_gateway_shows_in_the_metric()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process")));
        await host.Client.StatusAsync(id, "running");
        var (drift, registry) = (host.Services.GetRequiredService<UsageDrift>(), host.Services.GetRequiredService<NodeRegistry>());
        Engine Engine() => registry.All.Single().LastReport!.Engines.Single();
        Task CountedAsync(double completion) => Deadline.UntilAsync(() => Engine().Metrics?.GenerationTokens == completion, what: $"the engine to tell {completion} tokens");
        // the gateway counts an answer when all of it has gone out
        Task<UsageDrift.Reading> ComparedAsync(Func<UsageDrift.Reading, bool> holds) => Deadline.UntilAsync(() =>
        {
            drift.Compare();
            return Task.FromResult(drift.Readings.Single());
        }, holds);
        await Deadline.UntilAsync(() => Engine().Metrics is not null);
        drift.Compare();
        using (var asked = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 4), Ct))
            asked.EnsureSuccessStatusCode();
        await CountedAsync(4);
        await ComparedAsync(reading => reading == new UsageDrift.Reading(Engine().DeploymentUid, 0, 0));

        using (var direct = new HttpClient { DefaultRequestHeaders = { Authorization = new AuthenticationHeaderValue("Bearer", Engine().EngineKey) } })
        using (var asked = await direct.PostAsJsonAsync(Engine().EngineUrl + "/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 9), Ct))
            asked.EnsureSuccessStatusCode();
        await CountedAsync(13);
        var past = await ComparedAsync(reading => reading.CompletionTokens == 9);
        var uid = Engine().DeploymentUid;
        var page = await host.Client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct);
        await host.Client.StopModelAsync(id);

        past.PromptTokens.ShouldBeGreaterThan(0);
        page.ShouldContain($"modelhost_usage_drift{{deployment=\"{uid}\",kind=\"completion\"}} 9\n");
    }
}
