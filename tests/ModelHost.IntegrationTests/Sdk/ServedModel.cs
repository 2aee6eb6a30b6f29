using System.Globalization;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Gateway;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Sdk;

/// <summary>A control plane that serves one model on the simulator; both end with this object.</summary>
internal sealed class ServedModel : IAsyncDisposable
{
    /// <summary>A model that chats.</summary>
    public const string Chat = "demo/tiny-chat";

    private readonly HttpClient _admin;

    private ServedModel(ControlPlane host, HttpClient admin, int id) => (Host, _admin, Id) = (host, admin, id);

    public ControlPlane Host { get; }

    /// <summary>Id of the deployment.</summary>
    public int Id { get; }

    /// <summary>Where it is reached from this machine.</summary>
    public Uri Url => new($"http://127.0.0.1:{Host.Url.Port}/");

    /// <summary>What an OpenAI SDK takes as its base URL.</summary>
    public Uri BaseUrl => new(Url, "v1");

    /// <summary>Starts a model, and waits until it runs unless told otherwise.</summary>
    /// <param name="model">What to serve.</param>
    /// <param name="knobs">Variables of the simulator, as <c>NAME=value</c>.</param>
    /// <param name="urls">Where the control plane listens.</param>
    /// <param name="wait">Whether to wait until the model runs.</param>
    /// <param name="node">The node's surroundings.</param>
    /// <param name="configuration">Further settings as <c>Section:Key=value</c>.</param>
    public static async Task<ServedModel> StartAsync(
        string model = Chat, string[]? knobs = null, string urls = "http://127.0.0.1:0", bool wait = true, TestNode? node = null, string[]? configuration = null)
    {
        var host = await ControlPlane.StartAsync(node, urls, configuration: configuration ?? []);
        var admin = host.Admin();
        admin.BaseAddress = new Uri($"http://127.0.0.1:{host.Url.Port}/");
        var variables = (knobs ?? []).Select(knob => knob.Split('=', 2)).Select(JsonNode (pair) => new JsonObject { ["key"] = pair[0], ["value"] = pair[1] });
        var request = Api.StartRequest(await admin.NodeAsync("process"), model: model, change: fields =>
        {
            fields["env_vars"] = new JsonArray([.. variables]);
            fields["skip_resource_check"] = true;
        });
        var served = new ServedModel(host, admin, await admin.StartModelAsync(request));
        if (wait)
            await served.RunningAsync();
        return served;
    }

    /// <summary>Makes an API key, as <c>POST /api/api-keys</c> does.</summary>
    /// <param name="change">Adds limits to it.</param>
    /// <returns>The key.</returns>
    public async Task<string> MakeKeyAsync(Action<JsonObject>? change = null)
    {
        var request = new JsonObject { ["label"] = "sdk" };
        change?.Invoke(request);
        using var answer = await _admin.PostAsJsonAsync("/api/api-keys", request);
        return (await answer.EnsureSuccessStatusCode().Content.ReadFromJsonAsync<JsonElement>()).GetProperty("key").GetString()!;
    }

    /// <summary>What the gateway has counted, of all keys.</summary>
    public async Task<(long Prompt, long Completion)> UsageAsync()
    {
        var total = (await _admin.JsonAsync("/api/usage")).GetProperty("total");
        return (total.GetProperty("prompt_tokens").GetInt64(), total.GetProperty("completion_tokens").GetInt64());
    }

    /// <summary>Waits until the gateway has counted that, of all keys: it does when all of an answer has gone out.</summary>
    public Task<(long Prompt, long Completion)> CountedAsync((long Prompt, long Completion) tokens) =>
        Deadline.UntilAsync(UsageAsync, used => used == tokens, what: $"{tokens} to be counted");

    /// <summary>What its engine has counted.</summary>
    public async Task<(long Prompt, long Completion)> EngineTokensAsync() =>
        ((long)await EngineCounterAsync("vllm:prompt_tokens_total", ""), (long)await EngineCounterAsync("vllm:generation_tokens_total", ""));

    /// <summary>Waits until the model runs.</summary>
    public Task RunningAsync() => _admin.StatusAsync(Id, "running");

    /// <summary>Where its engine listens; null: it does not answer yet.</summary>
    public Uri? EngineUrl => Host.Services.GetRequiredService<RouteSource>().Current.Routes.Single().EngineUrl;

    /// <summary>The key that its engine asks for.</summary>
    public string EngineKey => Host.Services.GetRequiredService<RouteSource>().Current.Routes.Single().EngineKey ?? "none";

    /// <summary>The sum of a counter that the engine itself exposes, over the samples whose labels contain a text.</summary>
    public async Task<double> EngineCounterAsync(string name, string label)
    {
        var page = await _admin.GetStringAsync(new Uri(EngineUrl!, "/metrics"));
        return page.Split('\n')
            .Where(line => line.StartsWith(name + "{", StringComparison.Ordinal) && line.Contains(label, StringComparison.Ordinal))
            .Sum(line => double.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture));
    }

    public async ValueTask DisposeAsync()
    {
        await _admin.StopModelAsync(Id);
        _admin.Dispose();
        await Host.DisposeAsync();
    }
}
