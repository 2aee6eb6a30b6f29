using Google.Protobuf;
using Google.Protobuf.Collections;
using ModelHost.Access;
using ModelHost.Agent.Backends;
using ModelHost.Agent.Metering;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Routing;
using ModelHost.Features.Usage;
using ModelHost.Gateway;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;

namespace ModelHost.Features.Stores;

/// <summary>
/// Stores that gRPC backends hold: a request that names a <c>backend</c> other than the built-in one goes to the deployment of that backend whose model is the
/// <c>store</c>. What such a store refuses it refuses in its own words.
/// </summary>
internal sealed class BackendStores(RouteSource routes, BackendConnections backends, UsageBook usage)
{
    private const string DefaultStore = "default";
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(30);

    /// <summary>Whether a request is for one of these.</summary>
    public static bool IsMeant(string? backend) => backend is { Length: > 0 } && !StoreService.Backends.Contains(backend);

    /// <summary>Sets keys.</summary>
    public async Task<Failure?> SetAsync(HttpContext context, StoreSet request)
    {
        if (!StoreService.Keys(request.Keys, "no keys to add").TryGet(out var keys, out var failure)
            || !StoreService.Texts(request.Values ?? [], keys.Length).TryGet(out var texts, out failure))
            return failure;
        return await ChangeAsync(context, request.Store, request.Backend, (client, token) => client.StoresSetAsync(new StoresSetOptions
        {
            Keys = { keys.Select(Key) },
            Values = { texts.Select(text => new StoresValue { Bytes = UnsafeByteOperations.UnsafeWrap(text) }) },
        }, Deadline, token));
    }

    /// <summary>Deletes keys.</summary>
    public async Task<Failure?> DeleteAsync(HttpContext context, StoreKeys request) =>
        !StoreService.Keys(request.Keys, "no keys to delete").TryGet(out var keys, out var failure) ? failure
        : await ChangeAsync(context, request.Store, request.Backend,
            (client, token) => client.StoresDeleteAsync(new StoresDeleteOptions { Keys = { keys.Select(Key) } }, Deadline, token));

    /// <summary>Reads keys.</summary>
    public async Task<Result<VectorMatch[]>> GetAsync(HttpContext context, StoreKeys request) =>
        !StoreService.Keys(request.Keys, "no keys to get").TryGet(out var keys, out var failure) ? failure
        : await AskAsync(context, request.Store, request.Backend, async (client, token) =>
        {
            var found = await client.StoresGetAsync(new StoresGetOptions { Keys = { keys.Select(Key) } }, Deadline, token);
            return Matches(found.Keys, found.Values, null);
        });

    /// <summary>Finds the nearest keys.</summary>
    public async Task<Result<VectorMatch[]>> FindAsync(HttpContext context, StoreFind request)
    {
        if (!StoreService.Key(request.Key, "key").TryGet(out var key, out var failure))
            return failure;
        if (StoreService.Matches(request.Topk) is { } wrong)
            return wrong;
        return await AskAsync(context, request.Store, request.Backend, async (client, token) =>
        {
            var found = await client.StoresFindAsync(new StoresFindOptions { Key = Key(key), TopK = request.Topk }, Deadline, token);
            return Matches(found.Keys, found.Values, found.Similarities);
        });
    }

    private async Task<Failure?> ChangeAsync(
        HttpContext context, string? store, string? backend, Func<BackendClient, CancellationToken, Task<Protocol.Backend.Result>> changeAsync) =>
        (await AskAsync(context, store, backend, async (client, token) =>
            await changeAsync(client, token) is { Success: false } refused ? throw new RpcException(RpcCode.Unknown, refused.Message) : Array.Empty<VectorMatch>())).Failure;

    private async Task<Result<VectorMatch[]>> AskAsync(
        HttpContext context, string? store, string? backend, Func<BackendClient, CancellationToken, Task<VectorMatch[]>> askAsync)
    {
        var name = string.IsNullOrEmpty(store) ? DefaultStore : store;
        if (Enter(backend!, name, context.RouteScope()) is not { } route)
            return routes.Current.Routes.Any(other => other.Backend == backend) ? StoreFailures.NoDeployment(backend!, name) : StoreFailures.UnknownBackend(backend!);
        var failed = true;
        try
        {
            var answer = await askAsync(backends.To(route), context.RequestAborted);
            failed = false;
            return answer;
        }
        catch (RpcException e)
        {
            return e.Code is RpcCode.Unavailable or RpcCode.DeadlineExceeded ? StoreFailures.NoAnswer(name) : StoreFailures.Refused(e.Detail.Length > 0 ? e.Detail : e.Code.ToString());
        }
        finally
        {
            routes.Requests.Of(route.DeploymentUid).End();
            usage.Add(UsageCaller.Of(context), route, new UsageCount(1, context.RequestAborted.IsCancellationRequested ? 1 : 0, failed ? 1 : 0, 0, 0));
        }
    }

    /// <summary>Finds the deployment, and counts the request as under way on it before its route can be taken away.</summary>
    private ModelRoute? Enter(string backend, string store, RouteScope? scope)
    {
        while (true)
        {
            var table = routes.Current;
            if (table.Routes.FirstOrDefault(route => route is { IsRoutable: true, Protocol: BackendCatalogue.Grpc } && route.Backend == backend
                && route.IsOwnName(store) && (scope is null || scope.Allows(route, store))) is not { } found)
                return null;
            var requests = routes.Requests.Of(found.DeploymentUid);
            requests.Begin();
            if (ReferenceEquals(table, routes.Current))
                return found;
            requests.End();
        }
    }

    private static StoresKey Key(float[] floats)
    {
        var key = new StoresKey();
        key.Floats.AddRange(floats);
        return key;
    }

    private static VectorMatch[] Matches(RepeatedField<StoresKey> keys, RepeatedField<StoresValue> values, RepeatedField<float>? similarities) =>
        keys.Count != values.Count || (similarities is not null && similarities.Count != keys.Count)
            ? throw new RpcException(RpcCode.Internal, "the store answered with keys, values and similarities of different numbers")
            : [.. keys.Select((key, i) => new VectorMatch([.. key.Floats], values[i].Bytes.ToByteArray(), similarities?[i] ?? 0))];
}
