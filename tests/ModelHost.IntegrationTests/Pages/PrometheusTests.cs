using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using ModelHost.IntegrationTests.Sdk;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Pages;

/// <summary>The metrics of a control plane as Prometheus and its linter see them.</summary>
public sealed class PrometheusTests
{
    private const string Answered = "modelhost_gateway_request_duration_seconds_count{model=\"demo/tiny-chat\",route=\"/v1/chat/completions\",status=\"200\"} 2\n";
    private const string Refused = "model=\"_other\",route=\"/v1/chat/completions\",status=\"404\"";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Promtool_has_no_remarks()
    {
        var promtool = NodeScripts.Find("promtool", "prometheus");
        using var node = new TestNode(gpus: 2);
        // a process of its own: meters are found by their names, and so those of all hosts of a process are on the pages of each
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        using var client = new HttpClient { BaseAddress = host.Url };
        var id = await client.StartModelAsync(Api.StartRequest(await client.NodeAsync("process"), model: ServedModel.Chat, change: fields => fields["skip_resource_check"] = true));
        await client.StatusAsync(id, "running");
        await AskAsync(client);

        // a request is counted when all is done, and its answer is here a moment before
        var page = await Deadline.UntilAsync(() => client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct), text =>
            text.Contains(Answered, StringComparison.Ordinal) && text.Contains(Refused, StringComparison.Ordinal), what: "the requests to be counted");
        await client.StopModelAsync(id);
        var (code, output, errors) = await NodeScripts.RunProgramAsync(promtool, ["check", "metrics"], page);

        (output + errors).ShouldBe("");
        code.ShouldBe(0);
        // what the check must have seen
        page.ShouldContain("modelhost_deployments{status=\"running\"} 1\n");
        page.ShouldContain("hw_gpu_memory_limit_bytes{gpu=\"1\"");
        page.ShouldContain(Answered);
        page.ShouldContain(Refused);
        page.ShouldContain("http_server_request_duration_seconds_bucket{");
    }

    [Fact]
    public async Task Prometheus_scrapes_it()
    {
        var prometheus = NodeScripts.Find("prometheus", "prometheus");
        using var node = new TestNode();
        // a process of its own, as above: other tests run models meanwhile
        await using var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        var port = TestPorts.Free();
        var folder = Directory.CreateTempSubdirectory("mh-prom-");
        var config = Path.Combine(folder.FullName, "prometheus.yml");
        await File.WriteAllTextAsync(config, $$"""
            scrape_configs:
              - job_name: modelhost
                scrape_interval: 1s
                static_configs: [{targets: ['127.0.0.1:{{host.Url.Port}}']}]
            """, Ct);
        using var server = Process.Start(new ProcessStartInfo(prometheus,
            [$"--config.file={config}", $"--web.listen-address=127.0.0.1:{port}", $"--storage.tsdb.path={folder.FullName}/data", "--log.level=error"]))!;
        try
        {
            using var client = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{port}") };

            var up = await QueryAsync(client, "up{job=\"modelhost\"}", value => value == "1");
            var running = await QueryAsync(client, "modelhost_deployments{status=\"running\"}", value => value is not null);

            up.ShouldBe("1");
            running.ShouldBe("0");
        }
        finally
        {
            server.Kill();
            await server.WaitForExitAsync(CancellationToken.None);
            folder.Delete(recursive: true);
        }
    }

    private static async Task AskAsync(HttpClient client)
    {
        using var answer = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(ServedModel.Chat, maxTokens: 3), Ct);
        answer.EnsureSuccessStatusCode();
        using var streamed = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat(ServedModel.Chat, stream: true, maxTokens: 3), Ct);
        streamed.EnsureSuccessStatusCode();
        using var refused = await client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("no/such"), Ct);
        refused.IsSuccessStatusCode.ShouldBeFalse();
    }

    /// <summary>The value of the one sample that a query finds, once it is as wanted; null: it finds none.</summary>
    private static Task<string?> QueryAsync(HttpClient client, string query, Func<string?, bool> holds) => Deadline.UntilAsync(async () =>
    {
        try
        {
            var answer = await client.GetFromJsonAsync<JsonElement>($"/api/v1/query?query={Uri.EscapeDataString(query)}", Ct);
            var found = answer.GetProperty("data").GetProperty("result");
            return found.GetArrayLength() == 1 ? found[0].GetProperty("value")[1].GetString() : null;
        }
        catch (HttpRequestException)
        {
            return null; // it is not up yet
        }
    }, holds, what: query);
}
