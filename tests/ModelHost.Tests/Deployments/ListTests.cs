using System.Net;
using System.Text.Json;
using ModelHost.Core.Deployments;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>Reading deployments: fields, filters, pages.</summary>
public sealed class ListTests
{
    // the fields of the published schema, and those that compatible systems send beside them
    private static readonly string[] Fields =
    [
        "node_id", "model_name", "port", "gpu_memory_fraction", "gpu_ids", "tensor_parallel_size", "extra_args", "env_vars", "vllm_version", "engine_args",
        "lora_modules", "max_failed_restarts", "owner", "duration_seconds", "pinned", "start_on_demand", "id", "status", "expires_at", "image_digest", "last_error", "detail",
        "total_prompt_tokens", "total_completion_tokens", "total_requests", "prompt_tps", "generation_tps", "prompt_throughput", "generation_throughput",
        "requests_running", "requests_waiting", "pull_percent",
        "container_runtime", "extra_packages", "pip_packages", "created_at", "status_changed_at", "pull_downloaded_mb", "pull_total_mb",
    ];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Every_field_of_the_published_schema_is_there()
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        await host.Client.StartModelAsync(Api.StartRequest(node.Id));

        var listed = (await host.Client.JsonAsync("/api/deployments/")).EnumerateArray().ShouldHaveSingleItem();

        Fields.Except(listed.EnumerateObject().Select(field => field.Name)).ShouldBeEmpty();
    }

    [Fact]
    public async Task Filters_and_pages_are_parts_of_the_whole_list()
    {
        await using var host = await ControlPlane.StartAsync();
        var (node, other) = (await QuietNode.AddAsync(host), await QuietNode.AddAsync(host));
        var ids = new List<int>();
        for (var i = 0; i < 5; i++)
        {
            ids.Insert(0, await host.Client.StartModelAsync(Api.StartRequest((i == 4 ? other : node).Id, 8101 + i, $"demo/model-{i}",
                change: request => request["owner"] = i % 2 == 0 ? "even & co" : "odd")));
        }
        await node.SetAsync(ids[4], DeploymentStatus.Stopped);
        await node.SetAsync(ids[3], DeploymentStatus.Error);

        async Task ShouldListAsync(string query, params int[] expected) =>
            (await host.Client.JsonAsync("/api/deployments" + query)).EnumerateArray().Select(d => d.Id()).ShouldBe(expected, query);

        await ShouldListAsync("", [.. ids]);
        await ShouldListAsync("?status=stopped", ids[4]);
        await ShouldListAsync("?status=stopped&status=error", ids[3], ids[4]);
        await ShouldListAsync($"?node_id={other.Id}", ids[0]);
        await ShouldListAsync("?node_id=987");
        await ShouldListAsync("?owner=odd", ids[1], ids[3]);
        await ShouldListAsync("?owner=even%20%26%20co&status=starting", ids[0], ids[2]);
        await ShouldListAsync($"?before_id={ids[2]}", ids[3], ids[4]);
        await ShouldListAsync("?status=&owner=", [.. ids]);
    }

    [Theory]
    [InlineData("/api/deployments?limit=2", 3)]
    [InlineData("/api/deployments/?limit=1", 5)]
    [InlineData("/api/deployments?limit=5", 1)]
    [InlineData("/api/deployments?owner=even%20%26%20co&limit=2", 2)]
    [InlineData("/api/deployments?status=starting&status=stopped&limit=3", 2)]
    public async Task The_link_of_each_page_leads_through_all_of_them(string first, int pages)
    {
        await using var host = await ControlPlane.StartAsync();
        var node = await QuietNode.AddAsync(host);
        for (var i = 0; i < 5; i++)
            await host.Client.StartModelAsync(Api.StartRequest(node.Id, 8101 + i, $"demo/model-{i}", change: request => request["owner"] = i % 2 == 0 ? "even & co" : "odd"));
        var whole = (await host.Client.JsonAsync(first.Replace("limit", "ignored", StringComparison.Ordinal))).EnumerateArray().Select(d => d.Id());
        var (seen, count) = (new List<int>(), 0);

        for (var next = first; next is not null; count++)
        {
            using var answer = await host.Client.GetAsync(new Uri(next, UriKind.Relative), Ct);
            seen.AddRange(JsonDocument.Parse(await answer.Content.ReadAsStringAsync(Ct)).RootElement.EnumerateArray().Select(d => d.Id()));
            next = answer.Headers.TryGetValues("Link", out var links) ? links.Single().Split('<', '>')[1] : null;
            if (next is not null)
                links!.Single().ShouldEndWith(">; rel=\"next\"");
        }

        seen.ShouldBe(whole);
        count.ShouldBe(pages);
    }

    [Theory]
    [InlineData("?status=asleep", "status")]
    [InlineData("?status=running&status=RUNNING", "status")]
    [InlineData("?node_id=x", "node_id")]
    [InlineData("?limit=0", "limit")]
    [InlineData("?limit=1001", "limit")]
    [InlineData("?limit=many", "limit")]
    [InlineData("?before_id=99999999999", "before_id")]
    public async Task A_query_that_means_nothing_is_refused(string query, string field)
    {
        await using var host = await ControlPlane.StartAsync();

        await host.Client.GetAsync(new Uri("/api/deployments" + query, UriKind.Relative), Ct).ShouldBeRefusedAsync(HttpStatusCode.BadRequest, "validation", field);
    }

    [Fact]
    public async Task Both_spellings_of_every_path_are_answered_without_a_redirect()
    {
        await using var host = await ControlPlane.StartAsync();
        using var handler = new HttpClientHandler { AllowAutoRedirect = false };
        using var client = new HttpClient(handler) { BaseAddress = host.Url };
        foreach (var (method, path) in ((string, string)[])
            [
                ("GET", ""), ("GET", "/served-name/check?name=x"), ("GET", "/987/manifest"), ("GET", "/987/logs"), ("GET", "/987/logs/download"), ("GET", "/987"),
                ("POST", ""), ("POST", "/start"), ("POST", "/from-manifest"), ("POST", "/plan"), ("POST", "/stop/987"), ("POST", "/987/restart"),
                ("POST", "/987/extend"), ("POST", "/987/pin"), ("POST", "/987/start-on-demand"), ("DELETE", "/987"),
            ])
        {
            var spelt = new List<(HttpStatusCode, string)>();
            foreach (var slash in (string[])["", "/"])
            {
                var parts = path.Split('?');
                using var request = new HttpRequestMessage(new HttpMethod(method), $"/api/deployments{parts[0]}{slash}{(parts.Length > 1 ? "?" + parts[1] : "")}");
                if (method == "POST")
                    request.Content = new StringContent("{}", System.Text.Encoding.UTF8, "application/json");
                using var answer = await client.SendAsync(request, Ct);
                var code = answer.IsSuccessStatusCode ? "" : JsonDocument.Parse(await answer.Content.ReadAsStringAsync(Ct)).RootElement.Text("code");
                spelt.Add((answer.StatusCode, code!));
            }

            spelt[0].ShouldBe(spelt[1], $"{method} {path}");
            spelt[0].Item2.ShouldNotStartWith("route.", customMessage: $"{method} {path}");
            ((int)spelt[0].Item1).ShouldBeOneOf(200, 400, 404);
        }
    }
}
