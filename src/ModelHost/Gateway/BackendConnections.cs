using System.Diagnostics.CodeAnalysis;
using System.Net;
using ModelHost.Agent;
using ModelHost.Agent.Backends;
using ModelHost.Cluster;
using ModelHost.Core.Routing;
using ModelHost.Rpc;

namespace ModelHost.Gateway;

/// <summary>
/// Reaches the gRPC backends of deployments: those of this machine directly, those of other nodes through their agents, whose link is mutual TLS. Whoever asks
/// need not know which.
/// </summary>
internal sealed class BackendConnections : IDisposable
{
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);

    private readonly HttpMessageInvoker _here;
    private readonly HttpMessageInvoker _agents;
    private readonly RunFiles? _files;
    private readonly TimeProvider _time;

    public BackendConnections(NodeLinks links, TimeProvider time, LocalNode? node = null)
    {
        (_time, _files) = (time, node?.Files);
        _here = new HttpMessageInvoker(Backends());
        var handler = links.Handler();
        handler.ConnectTimeout = ConnectTimeout;
        _agents = new HttpMessageInvoker(handler);
    }

    /// <summary>Asks the backend of a route, whose <see cref="ModelRoute.Protocol"/> is <c>grpc</c>. Costs next to nothing and holds nothing.</summary>
    /// <param name="route">A route that requests can be forwarded to.</param>
    public BackendClient To(ModelRoute route) => To(UrlOf(route), route.EngineKey);

    /// <summary>Asks the backend of a run.</summary>
    /// <param name="engineUrl">Where it is reached, as in routes and in the reports of nodes.</param>
    /// <param name="engineKey">Key of its run.</param>
    public BackendClient To(Uri engineUrl, string? engineKey) => new(new RpcClient(engineUrl, NodeLinks.IsAgent(engineUrl) ? _agents : _here,
        new RpcClientOptions { MaxMessageBytes = BackendClient.MaxMessageBytes, BearerToken = engineKey, Time = _time }));

    /// <summary>
    /// Makes a file on the machine of a backend, which its protocol names by the path there: with content for one that the backend reads, without for one that it
    /// writes. It goes with the disposal.
    /// </summary>
    /// <param name="route">As above.</param>
    /// <param name="extension">Of its name, as <c>wav</c>: backends go by it. Letters and digits.</param>
    /// <param name="content">What it holds; null: the backend makes it.</param>
    /// <param name="cancellationToken">Gives it up.</param>
    /// <exception cref="IOException">It could not be written.</exception>
    /// <exception cref="HttpRequestException">The node was not reached, or refused.</exception>
    public async Task<BackendFile> FileAsync(ModelRoute route, string extension, Stream? content, CancellationToken cancellationToken)
    {
        var (name, url) = ($"{Guid.NewGuid():N}.{extension}", UrlOf(route));
        if (!NodeLinks.IsAgent(url))
        {
            var files = _files ?? throw new InvalidOperationException("this control plane has no node of its own");
            files.Open(route.RunId);
            var path = content is null ? files.PathOf(route.RunId, name) : await files.WriteAsync(route.RunId, name, content, cancellationToken);
            return new BackendFile(path, _ => Task.FromResult<Stream?>(files.OpenRead(route.RunId, name)), () =>
            {
                files.Delete(route.RunId, name);
                return Task.CompletedTask;
            });
        }
        var place = new Uri(url, $"/files/{route.RunId}/{name}");
        using var answer = await AskAsync(HttpMethod.Put, place, content, cancellationToken);
        answer.EnsureSuccessStatusCode();
        return new BackendFile(answer.Headers.GetValues(RunFileRoutes.PathHeader).Single(), token => ReadAsync(place, token), async () =>
        {
            using var gone = await AskAsync(HttpMethod.Delete, place, null, CancellationToken.None);
        });
    }

    public void Dispose()
    {
        _here.Dispose();
        _agents.Dispose();
    }

    private async Task<Stream?> ReadAsync(Uri place, CancellationToken cancellationToken)
    {
        var answer = await AskAsync(HttpMethod.Get, place, null, cancellationToken);
        if (answer.StatusCode == HttpStatusCode.NotFound)
        {
            answer.Dispose();
            return null;
        }
        answer.EnsureSuccessStatusCode();
        return await answer.Content.ReadAsStreamAsync(cancellationToken); // ends with its answer
    }

    [SuppressMessage("Reliability", "CA2000", Justification = "The content goes with the request.")]
    private async Task<HttpResponseMessage> AskAsync(HttpMethod method, Uri place, Stream? content, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(method, place) { Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact };
        if (content is not null)
            request.Content = new StreamContent(content);
        return await _agents.SendAsync(request, cancellationToken);
    }

    // no pings over HTTP/2: gRPC's C core ends connections on which they come more often than every five minutes
    private static SocketsHttpHandler Backends() => new()
    {
        UseProxy = false,
        AllowAutoRedirect = false,
        UseCookies = false,
        ConnectTimeout = ConnectTimeout,
        EnableMultipleHttp2Connections = true,
    };

    private static Uri UrlOf(ModelRoute route) => route.EngineUrl ?? throw new ArgumentException("the engine of this route does not answer", nameof(route));
}

/// <summary>A file on the machine of a backend.</summary>
/// <param name="path">Its path there, for the backend.</param>
/// <param name="read">Opens it; null: there is none.</param>
/// <param name="delete">Removes it.</param>
internal sealed class BackendFile(string path, Func<CancellationToken, Task<Stream?>> read, Func<Task> delete) : IAsyncDisposable
{
    /// <summary>Its path there, for the backend.</summary>
    public string Path => path;

    /// <summary>Opens it.</summary>
    /// <returns>What the backend has written; null: nothing.</returns>
    public Task<Stream?> OpenReadAsync(CancellationToken cancellationToken) => read(cancellationToken);

    /// <summary>Removes it. A node that is not reached now removes it with the run.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            await delete();
        }
        catch (Exception e) when (e is HttpRequestException or IOException)
        {
            // see above
        }
    }
}
