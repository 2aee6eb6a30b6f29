using System.Net.Http.Headers;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Hosting;

namespace ModelHost.TestKit;

/// <summary>A control plane in this process: real Kestrel on a free port, its own data folder and database, and a local node.</summary>
public sealed class ControlPlane : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly DataFolder _folder;
    private readonly bool _ownsNode;

    private ControlPlane(WebApplication app, DataFolder folder, TestNode node, bool ownsNode)
    {
        (_app, _folder, Node, _ownsNode) = (app, folder, node, ownsNode);
        Url = new Uri(app.Urls.First());
        // a body that waits for leave to be sent waits for the answer, however long it takes, and is not cut off by a refusal
        Client = new HttpClient(new SocketsHttpHandler { Expect100ContinueTimeout = TimeSpan.FromSeconds(60) }) { BaseAddress = Url, Timeout = TimeSpan.FromMinutes(5) };
        AdminKey = File.ReadAllText(Path.Combine(node.Data, "admin-key")).Trim();
    }

    /// <summary>Where it listens.</summary>
    public Uri Url { get; }

    /// <summary>A client of it that sends no credentials.</summary>
    public HttpClient Client { get; }

    /// <summary>Its admin key.</summary>
    public string AdminKey { get; }

    /// <summary>The node's surroundings.</summary>
    public TestNode Node { get; }

    /// <summary>Its services.</summary>
    public IServiceProvider Services => _app.Services;

    /// <summary>Starts one.</summary>
    /// <param name="node">The node's surroundings; null: a node without GPUs or Docker, which goes with the control plane.</param>
    /// <param name="urls">Where to listen. Default: a free loopback port.</param>
    /// <param name="configure">Changes the services.</param>
    /// <param name="configuration">Further settings as <c>Section:Key=value</c>.</param>
    public static async Task<ControlPlane> StartAsync(
        TestNode? node = null, string urls = "http://127.0.0.1:0", Action<IServiceCollection>? configure = null, params string[] configuration)
    {
        var surroundings = node ?? new TestNode();
        var folder = DataFolder.Open(surroundings.Data);
        try
        {
            await EmptyDatabase.PutAsync(folder);
            // a list that goes without a gallery, because that answers late on a busy machine, is not what tests are about
            // and nobody is asked beyond this machine, where a resolver alone may take its time
            var settings = new ServeSettings { Data = surroundings.Data, Urls = urls, Configuration = ["Downloads:HuggingFaceUrl=http://127.0.0.1:9", .. surroundings.Configuration, "Cluster:Listen=127.0.0.1:0", "Galleries:Patience=00:01:00", .. configuration] };
            var app = ServeHost.Build(settings, folder, builder => configure?.Invoke(builder.Services));
            await app.StartAsync();
            return new ControlPlane(app, folder, surroundings, ownsNode: node is null);
        }
        catch
        {
            folder.Dispose();
            throw;
        }
    }

    /// <summary>A client of it that sends the admin key.</summary>
    public HttpClient Admin() => new() { BaseAddress = Url, DefaultRequestHeaders = { Authorization = new AuthenticationHeaderValue("Bearer", AdminKey) } };

    /// <summary>Stops it as SIGTERM does; its engines go on unless they are stopped before.</summary>
    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await _app.StopAsync();
        await _app.DisposeAsync();
        _folder.Dispose();
        if (_ownsNode)
            Node.Dispose();
    }
}
