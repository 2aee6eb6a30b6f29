using System.Net.Sockets;
using ModelHost.Agent.Backends;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Protocol;
using ModelHost.Rpc;

namespace ModelHost.Agent.Engines;

/// <summary>A backend of LocalAI's gRPC protocol: up when Health says OK, serving when LoadModel has succeeded, and told of by Status where it has that.</summary>
internal sealed class BackendProtocol(
    HttpMessageInvoker connections, BackendRecipe recipe, Uri url, string key, ModelLoad load, TimeSpan loadTimeout, TimeProvider time) : IEngineProtocol
{
    // what goes into every report of the node is bounded, whatever a backend says
    private const int MaxParts = 32, MaxPartName = 64;
    private const int MaxAnswer = 1024 * 1024;
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan FreeDeadline = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(2);

    private readonly BackendClient _client = new(new RpcClient(url, connections, new RpcClientOptions { MaxMessageBytes = MaxAnswer, BearerToken = key, Time = time }));

    /// <summary>Connections for all backends.</summary>
    public static HttpMessageInvoker Connections() => new(new SocketsHttpHandler
    {
        UseProxy = false,
        AllowAutoRedirect = false,
        UseCookies = false,
        ConnectTimeout = ConnectTimeout,
        EnableMultipleHttp2Connections = true,
        // no pings over HTTP/2: gRPC's C core ends connections on which they come more often than every five minutes
        ConnectCallback = ConnectAsync,
    });

    public async Task<bool> IsReadyAsync(CancellationToken cancellationToken)
    {
        try
        {
            return await _client.HealthAsync(Deadline, cancellationToken);
        }
        catch (RpcException)
        {
            return false;
        }
    }

    public async Task<EngineFailure?> LoadAsync(LaunchSpec spec, CancellationToken cancellationToken)
    {
        try
        {
            var result = await _client.LoadModelAsync(load.Options(recipe, spec), loadTimeout, cancellationToken);
            return result.Success ? null : FailureClassifier.ClassifyLoad(recipe, result.Message);
        }
        catch (RpcException e) when (e.Code == RpcCode.Unavailable)
        {
            // it ended, and the cause is told by its exit and its last words; or it is another's, and comes back
            throw new EngineSilentException(e.Detail, e);
        }
        catch (RpcException e) when (e.Code == RpcCode.DeadlineExceeded)
        {
            return new EngineFailure("load_timeout", $"The backend did not load the model within {loadTimeout.TotalSeconds:0} s (Node:BackendLoadTimeout).");
        }
        catch (RpcException e)
        {
            return FailureClassifier.ClassifyLoad(recipe, e.Detail.Length > 0 ? e.Detail : e.Code.ToString());
        }
    }

    public async Task<Action<Engine>?> ReadAsync(CancellationToken cancellationToken)
    {
        var status = AskAsync(() => _client.StatusAsync(Deadline, cancellationToken));
        var metrics = AskAsync(() => _client.MetricsAsync(Deadline, cancellationToken));
        var (told, silence) = await status;
        var (tokens, _) = await metrics;
        // whether it answers at all, one that has no Status is asked in another way
        if (told is null && silence is null && !await IsReadyAsync(cancellationToken))
            silence = "the backend does not say that it is up";
        var reading = new BackendReading { Silence = silence ?? "", ReadAt = time.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0 };
        if (told is not null)
            reading.State = (int)told.State;
        if (told?.Memory is { } memory)
        {
            reading.MemoryBytes = memory.Total;
            foreach (var (part, bytes) in memory.Breakdown.Where(part => part.Key.Length is > 0 and <= MaxPartName && !part.Key.Any(char.IsControl)).Take(MaxParts))
                reading.MemoryBreakdown[part] = bytes;
        }
        if (tokens is not null)
            (reading.TokensPerSecond, reading.TokensGenerated, reading.PromptTokensProcessed) = (tokens.TokensPerSecond, tokens.TokensGenerated, tokens.PromptTokensProcessed);
        return engine => engine.Backend = reading;
    }

    public async Task FreeAsync(CancellationToken cancellationToken)
    {
        try
        {
            await _client.FreeAsync(FreeDeadline, cancellationToken);
        }
        catch (RpcException)
        {
            // it has no such method, or does not answer: it is ended all the same
        }
    }

    /// <summary>Asks one thing.</summary>
    /// <returns>The answer; without one, why the backend is silent; neither: it has no such method.</returns>
    private static async Task<(T? Answer, string? Silence)> AskAsync<T>(Func<Task<T>> ask) where T : class
    {
        try
        {
            return (await ask(), null);
        }
        catch (RpcException e)
        {
            return (null, BackendFailures.IsMissing(e) ? null : $"{e.Code}: {(e.Detail.Length <= 200 ? e.Detail : e.Detail[..200])}");
        }
    }

    private static async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            // a machine that is gone without a word shows by these
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, 10);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, 5);
            socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, 3);
            await socket.ConnectAsync(context.DnsEndPoint, cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
