using System.Net;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Cluster;
using ModelHost.TestKit;

namespace ModelHost.Tests.Cluster;

/// <summary>A control plane that takes nodes on a free loopback port, with a clock that can be moved.</summary>
internal sealed class TestCluster : IAsyncDisposable
{
    private TestCluster(ControlPlane host, MovedClock clock) => (Host, Clock) = (host, clock);

    public ControlPlane Host { get; }

    public MovedClock Clock { get; }

    /// <summary>Where nodes join; the listener has to be open.</summary>
    public string Join => $"127.0.0.1:{Host.Services.GetRequiredService<ClusterListener>().Port}";

    public ClusterService Service => Host.Services.GetRequiredService<ClusterService>();

    public static async Task<TestCluster> StartAsync(TestNode? node = null, params string[] configuration)
    {
        var clock = new MovedClock();
        var host = await ControlPlane.StartAsync(
            node, configure: services => services.AddSingleton<TimeProvider>(clock), configuration: ["Cluster:Listen=127.0.0.1:0", .. configuration]);
        return new TestCluster(host, clock);
    }

    /// <summary>Makes a token.</summary>
    public async Task<string> TokenAsync(string? nodeName = null, int minutes = 60)
    {
        using var answer = await Host.Client.PostAsJsonAsync("/api/nodes/join-tokens", new { node_name = nodeName, ttl_minutes = minutes });
        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        return (await answer.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("token").GetString()!;
    }

    /// <summary>Starts an agent that joins.</summary>
    public async Task<NodeAgent> AgentAsync(string name = "gpu-1", TestNode? node = null)
    {
        var token = await TokenAsync(); // which opens the listener
        return await NodeAgent.StartAsync(Join, token, node, name, Clock);
    }

    /// <summary>What the API says of the node with a hostname; null: there is none.</summary>
    public async Task<JsonElement?> NodeAsync(string hostname)
    {
        var nodes = await Host.Client.JsonAsync("/api/nodes");
        var found = nodes.EnumerateArray().Where(node => node.GetProperty("hostname").GetString() == hostname).ToArray();
        return found.Length == 0 ? null : found.ShouldHaveSingleItem();
    }

    /// <summary>The machines that are not registered.</summary>
    public async Task<JsonElement[]> DiscoveredAsync() => [.. (await Host.Client.JsonAsync("/api/nodes/discovered")).GetProperty("nodes").EnumerateArray()];

    /// <summary>The one of them with a name; null: there is none.</summary>
    public async Task<JsonElement?> DiscoveredAsync(string name)
    {
        var found = (await DiscoveredAsync()).Where(node => node.GetProperty("node").GetString() == name).ToArray();
        return found.Length == 0 ? null : found.ShouldHaveSingleItem();
    }

    /// <summary>Why Consul cannot be read; null: it can.</summary>
    public async Task<string?> ConsulErrorAsync() => (await Host.Client.JsonAsync("/api/nodes/discovered")).GetProperty("consul_error").GetString();

    /// <summary>Waits until a node has a status; until one that is online has told what it has, too, before which nothing can be started there.</summary>
    /// <returns>Its id.</returns>
    public async Task<int> StatusAsync(string hostname, string status, double seconds = 60)
    {
        var node = await Deadline.UntilAsync(
            () => NodeAsync(hostname), found => found?.GetProperty("status").GetString() == status && (status != "online" || Api.HasTold(found.Value, "process")), seconds, $"{hostname} to be {status}");
        return node!.Value.GetProperty("id").GetInt32();
    }

    /// <summary>Runs a model on the node <c>gpu-1</c> until it is served.</summary>
    /// <param name="model">Its name.</param>
    /// <param name="port">Its port.</param>
    /// <param name="variables">The environment of its engine.</param>
    /// <returns>The deployment's id.</returns>
    public async Task<int> RunAsync(string model, int port, params (string Key, string Value)[] variables)
    {
        var node = await StatusAsync("gpu-1", "online");
        var id = await Host.Client.StartModelAsync(Api.StartRequest(node, port, model, change: request =>
            request["env_vars"] = new JsonArray([.. variables.Select(variable => new JsonObject { ["key"] = variable.Key, ["value"] = variable.Value })])));
        await Host.Client.StatusAsync(id, "running");
        return id;
    }

    /// <summary>Runs <c>demo/tiny-chat</c> there.</summary>
    public Task<int> RunAsync(params (string Key, string Value)[] variables) => RunAsync("demo/tiny-chat", 8101, variables);

    /// <summary>Opens a stream, which the engine has begun.</summary>
    public async Task<HttpResponseMessage> StreamAsync(int maxTokens, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat("demo/tiny-chat", stream: true, maxTokens: maxTokens)) };
        var answer = await Host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        return answer;
    }

    /// <summary>What an agent has written down of its engines.</summary>
    public static JsonElement[] Sidecars(NodeAgent agent) =>
        [.. Directory.GetFiles(Path.Combine(agent.Node.Data, "engines"), "*.json").Select(file => JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(file)))];

    /// <summary>A client of the cluster listener that shows a certificate, and trusts whoever answers.</summary>
    public HttpClient Client(X509Certificate2? shown = null)
    {
        var handler = new SocketsHttpHandler { UseProxy = false, Expect100ContinueTimeout = TimeSpan.FromSeconds(60) };
        handler.SslOptions.RemoteCertificateValidationCallback = (_, certificate, _, _) => certificate is not null;
        handler.SslOptions.LocalCertificateSelectionCallback = (_, _, _, _, _) => shown!;
        return new HttpClient(handler) { BaseAddress = new Uri($"https://{Join}") };
    }

    /// <summary>A certificate that the cluster's authority signs for a node, with its key.</summary>
    public X509Certificate2 CertificateOf(string nodeId)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var (certificate, _) = Host.Services.GetRequiredService<Lazy<ClusterAuthority>>().Value.SignNode(SigningRequest(key), nodeId)!.Value;
        using (certificate)
            return certificate.CopyWithPrivateKey(key);
    }

    /// <summary>A request for a certificate.</summary>
    public static string SigningRequest(ECDsa key) => new CertificateRequest("CN=x", key, HashAlgorithmName.SHA256).CreateSigningRequestPem();

    /// <summary>A request to join, as it should be.</summary>
    public static Dictionary<string, string> JoinRequest(string token, string? nodeId = null, string name = "gpu-1")
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        return new()
        {
            ["secret"] = JoinTicket.Parse(token)!.Secret,
            ["node_id"] = nodeId ?? Guid.NewGuid().ToString("N"),
            ["name"] = name,
            ["signing_request"] = SigningRequest(key),
        };
    }

    public ValueTask DisposeAsync() => Host.DisposeAsync();
}
