using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Features.Nodes;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Proxy;

/// <summary>A control plane whose local node has a simulated engine with a public port, and a client of that port.</summary>
internal sealed class DirectNode : IAsyncDisposable
{
    private readonly TestNode _surroundings;

    private DirectNode(TestNode surroundings, ControlPlane host, int port)
    {
        (_surroundings, Host, Port) = (surroundings, host, port);
        Client = new HttpClient(new SocketsHttpHandler { Expect100ContinueTimeout = TimeSpan.FromSeconds(60) }) { BaseAddress = new Uri($"http://127.0.0.1:{port}"), Timeout = TimeSpan.FromSeconds(60) };
    }

    public ControlPlane Host { get; }

    /// <summary>The public port.</summary>
    public int Port { get; }

    /// <summary>A client of it.</summary>
    public HttpClient Client { get; }

    /// <summary>Id of the deployment.</summary>
    public int Id { get; private set; }

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Starts one and waits until its engine runs.</summary>
    /// <param name="variables">Variables of the engine.</param>
    /// <param name="listen">Where the public port is listened on.</param>
    /// <param name="port">The public port. Default: a free one.</param>
    /// <param name="time">The clock.</param>
    /// <param name="change">Changes the request.</param>
    /// <param name="configuration">Settings as <c>Section:Key=value</c>.</param>
    public static async Task<DirectNode> StartAsync(
        (string Key, string Value)[]? variables = null, string listen = "127.0.0.1", int port = 0, TimeProvider? time = null, Action<JsonObject>? change = null,
        params string[] configuration)
    {
        var surroundings = new TestNode { DirectListen = listen };
        var host = await ControlPlane.StartAsync(surroundings, configure: services =>
        {
            if (time is not null)
                services.AddSingleton(time);
        }, configuration: configuration);
        var node = new DirectNode(surroundings, host, port == 0 ? TestPorts.Free() : port);
        var request = Api.StartRequest(await host.Client.NodeAsync("process"), node.Port, change: request =>
        {
            request["env_vars"] = new JsonArray([.. (variables ?? []).Select(variable => new JsonObject { ["key"] = variable.Key, ["value"] = variable.Value })]);
            change?.Invoke(request);
        });
        node.Id = await host.Client.StartModelAsync(request);
        await host.Client.StatusAsync(node.Id, "running");
        return node;
    }

    /// <summary>Asks for a chat.</summary>
    public static Task<HttpResponseMessage> ChatAsync(HttpClient client, string? key = null, int tokens = 2, bool stream = false, params (string Name, string Value)[] headers) =>
        SendAsync(client, key, JsonContent.Create(Api.Chat("demo/tiny-chat", stream, tokens)), headers);

    /// <summary>Asks for a chat.</summary>
    public Task<HttpResponseMessage> ChatAsync(string? key = null, int tokens = 2, bool stream = false, params (string Name, string Value)[] headers) =>
        ChatAsync(Client, key, tokens, stream, headers);

    /// <summary>Waits until a chat with a key has a status; what changes at the control plane reaches a node a moment later.</summary>
    public async Task BecomesAsync(HttpStatusCode status, string? key = null)
    {
        await Deadline.UntilAsync(async () =>
        {
            try
            {
                using var answer = await ChatAsync(key);
                return answer.StatusCode;
            }
            catch (HttpRequestException)
            {
                return (HttpStatusCode?)null; // the port is listened on a moment after the engine is ready
            }
        }, found => found == status, what: $"a chat to be answered with {status}");
    }

    /// <summary>What the node reported last of the engine.</summary>
    public Engine Reported() => Host.Services.GetRequiredService<NodeRegistry>().All.Single().LastReport!.Engines.Single();

    /// <summary>The deployment as the API shows it.</summary>
    public Task<JsonElement> ReadAsync() => Host.Client.JsonAsync($"/api/deployments/{Id}");

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await Host.DisposeAsync();
        _surroundings.Dispose();
    }

    private static async Task<HttpResponseMessage> SendAsync(HttpClient client, string? key, HttpContent content, (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = content };
        if (key is not null)
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", key);
        foreach (var (name, value) in headers)
            request.Headers.TryAddWithoutValidation(name, value).ShouldBeTrue();
        return await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
    }
}
