using System.Globalization;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.Agent.Runtimes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Monitor;

/// <summary>What engines count, as the API and the page of metrics show it.</summary>
public sealed class EngineFiguresTests
{
    private const int SigStop = 19, SigCont = 18;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Engine_that_hangs_shows_that_its_figures_are_old_and_keeps_no_other_from_being_read()
    {
        using var surroundings = new TestNode();
        // a process of its own: meters of other hosts in this process would be on the page too
        await using var host = await ModelHostProcess.ServeAsync(surroundings, TestPorts.Free());
        using var client = new HttpClient { BaseAddress = host.Url };
        var node = await client.NodeAsync("process");
        var hung = await client.StartModelAsync(Api.StartRequest(node, 8101, "demo/hung"));
        var other = await client.StartModelAsync(Api.StartRequest(node, 8102, "demo/other"));
        await client.StatusAsync(hung, "running");
        await client.StatusAsync(other, "running");
        using var chat = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/other", maxTokens: 7), Ct);
        chat.EnsureSuccessStatusCode();
        await UntilAsync(client, hung, read => IsNumber(read, "kv_cache_usage") && read.GetProperty("metrics_stale").ValueKind == JsonValueKind.Null);
        await UntilAsync(client, other, read => read.GetProperty("total_completion_tokens").GetInt64() == 7);
        var before = await PageAsync(client);
        var pid = (await PidAsync(surroundings, hung, client)).ShouldNotBeNull();

        Libc.SignalGroup(pid, SigStop);
        try
        {
            var stale = await UntilAsync(client, hung, read => read.GetProperty("metrics_stale").ValueKind == JsonValueKind.String);
            var page = await PageAsync(client);
            var readAt = stale.GetProperty("metrics_read_at").GetDateTimeOffset();
            // it goes on being read, and the other's report comes as often as before
            for (var i = 0; i < 2; i++)
            {
                var last = (await client.JsonAsync($"/api/deployments/{other}")).GetProperty("metrics_read_at").GetDateTimeOffset();
                await UntilAsync(client, other, read => read.GetProperty("metrics_read_at").GetDateTimeOffset() > last);
            }

            stale.GetProperty("status").GetString().ShouldBe("running", "busy is not gone");
            stale.GetProperty("metrics_stale").GetString().ShouldBe("no answer within 5 s");
            (await client.JsonAsync($"/api/deployments/{hung}")).GetProperty("metrics_read_at").GetDateTimeOffset().ShouldBe(readAt);
            Sample(before, "modelhost_engine_requests", hung, "state=\"running\"").ShouldBe(0);
            Sample(before, "modelhost_engine_requests", other, "state=\"waiting\"").ShouldBe(0);
            Sample(before, "modelhost_engine_kv_cache_usage_ratio", other).ShouldNotBeNull().ShouldBeInRange(0, 1);
            Sample(before, "modelhost_engine_tokens_total", other, "kind=\"completion\"").ShouldBe(7);
            Sample(before, "modelhost_engine_requests_finished_total", other).ShouldBe(1);
            Sample(page, "modelhost_engine_requests", hung, "state=\"running\"").ShouldBeNull("an old figure is no measurement");
            Sample(page, "modelhost_engine_tokens_total", hung, "kind=\"completion\"").ShouldNotBeNull();
            Sample(page, "modelhost_engine_requests", other, "state=\"running\"").ShouldBe(0);
        }
        finally
        {
            Libc.SignalGroup(pid, SigCont);
        }
        await UntilAsync(client, hung, read => read.GetProperty("metrics_stale").ValueKind == JsonValueKind.Null);
        await client.StopModelAsync(hung);
        await client.StopModelAsync(other);
    }

    private static Task<JsonElement> UntilAsync(HttpClient client, int id, Func<JsonElement, bool> holds) =>
        Deadline.UntilAsync(() => client.JsonAsync($"/api/deployments/{id}"), holds, seconds: 90);

    private static bool IsNumber(JsonElement read, string field) => read.GetProperty(field).ValueKind == JsonValueKind.Number;

    private static Task<string> PageAsync(HttpClient client) => client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct);

    private static double? Sample(string page, string name, int deployment, string label = "") => page.Split('\n')
        .Where(line => line.StartsWith(name + "{", StringComparison.Ordinal) && line.Contains($"deployment=\"{deployment}\"", StringComparison.Ordinal) && line.Contains(label, StringComparison.Ordinal))
        .Select(line => (double?)double.Parse(line.Split(' ')[^1], CultureInfo.InvariantCulture)).SingleOrDefault();

    private static async Task<int?> PidAsync(TestNode surroundings, int deployment, HttpClient client)
    {
        var run = (await client.JsonAsync($"/api/deployments/{deployment}/runs"))[0].GetProperty("id").GetString();
        return Directory.GetFiles(Path.Combine(surroundings.Data, "engines"), "*.json").Select(ProcessSidecar.Read).Single(sidecar => sidecar?.RunId == run)?.Pid;
    }
}
