using System.Collections.Frozen;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Routing;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>One path with its methods. A part of the path in braces stands for any text, which the handler finds among the route values.</summary>
internal sealed record Route(string Path, string[] Methods, RequestDelegate Handle);

/// <summary>
/// Finds the handler of a request, checks the key, and turns refusals into bodies. A dictionary in place of ASP.NET routing: the table is
/// small and fixed, and vLLM's answers for unknown paths and methods are its own.
/// </summary>
internal sealed class Router(ServerOptions options, IReadOnlyList<Route> routes, HttpCounts counts, ServerLog log, TimeProvider time)
{
    /// <summary>Routes that the request counters leave out.</summary>
    private static readonly FrozenSet<string> Uncounted = FrozenSet.Create("/metrics", "/health", "/load", "/ping", "/version", "/server_info");

    private readonly string[] _guarded = options.Release.Has(Traits.GuardsEveryApi) ? ["/v1", "/v2", "/inference", "/cohere"] : ["/v1"];

    private readonly bool _flatErrors = options.Release.Has(Traits.FlatErrors);

    private readonly FrozenDictionary<string, Route> _routes = routes.Where(route => !IsTemplate(route.Path)).ToFrozenDictionary(route => route.Path);

    private readonly Route[] _templates = [.. routes.Where(route => IsTemplate(route.Path))];

    private readonly byte[][] _keys = [.. options.ApiKeys.Select(key => SHA256.HashData(Encoding.UTF8.GetBytes(key)))];

    public async Task HandleAsync(HttpContext context)
    {
        var (request, response, started) = (context.Request, context.Response, time.GetTimestamp());
        response.Headers.Server = "uvicorn";
        var path = request.Path.Value!;
        if (options.RootPath.Length > 0 && path.StartsWith(options.RootPath, StringComparison.Ordinal))
            path = path[options.RootPath.Length..];
        if (options.Flags.Switch("enable_request_id_headers"))
            response.Headers["X-Request-Id"] = request.Headers.TryGetValue("X-Request-Id", out var id) ? id : Guid.NewGuid().ToString("N");
        var route = _routes.GetValueOrDefault(path) ?? Array.Find(_templates, template => Matches(template.Path, path, request.RouteValues));
        try
        {
            await DispatchAsync(context, path, route);
        }
        catch (ApiException e) when (!response.HasStarted)
        {
            await Answers.ErrorAsync(context, e, _flatErrors);
        }
        catch (Exception e) when (context.RequestAborted.IsCancellationRequested && e is OperationCanceledException or IOException)
        {
            // the client is gone, or the process ends at once: what was in flight has been aborted by its owner, and without this an answer
            // that nobody wrote would go out as an empty 200
            context.Abort();
        }
        catch (BadHttpRequestException e) when (!response.HasStarted)
        {
            await Answers.StatusAsync(context, e.StatusCode, _flatErrors);
        }
        if (!Uncounted.Contains(path))
            counts.Add(route?.Path ?? "none", request.Method, response.StatusCode, request.ContentLength, response.ContentLength,
                time.GetElapsedTime(started).TotalSeconds);
        if (options.AccessLog && !options.HiddenFromAccessLog.Contains(path))
            log.Access(new(context.Connection.RemoteIpAddress, context.Connection.RemotePort, request.Method,
                context.Features.Get<IHttpRequestFeature>()!.RawTarget, response.StatusCode));
    }

    private static bool IsTemplate(string path) => path.Contains('{', StringComparison.Ordinal);

    private static bool Matches(string template, string path, RouteValueDictionary values)
    {
        var (open, close) = (template.IndexOf('{', StringComparison.Ordinal), template.IndexOf('}', StringComparison.Ordinal));
        var (before, after) = (template[..open], template[(close + 1)..]);
        if (path.Length <= before.Length + after.Length || !path.StartsWith(before, StringComparison.Ordinal) || !path.EndsWith(after, StringComparison.Ordinal))
            return false;
        var value = path[before.Length..^after.Length];
        if (value.Contains('/', StringComparison.Ordinal))
            return false;
        values[template[(open + 1)..close]] = value;
        return true;
    }

    private Task DispatchAsync(HttpContext context, string path, Route? route)
    {
        if (_keys.Length > 0 && context.Request.Method != "OPTIONS" && Array.Exists(_guarded, prefix => path.StartsWith(prefix, StringComparison.Ordinal))
            && !HasKey(context))
            return Answers.ObjectAsync(context, json => json.WriteString("error"u8, "Unauthorized"u8), 401);
        if (route is null)
            return Answers.StatusAsync(context, 404, _flatErrors);
        if (!route.Methods.Contains(context.Request.Method))
        {
            context.Response.Headers.Allow = string.Join(", ", route.Methods);
            return Answers.StatusAsync(context, 405, _flatErrors);
        }
        return route.Handle(context);
    }

    private bool HasKey(HttpContext context)
    {
        var header = context.Request.Headers.Authorization.ToString();
        var blank = header.IndexOf(' ', StringComparison.Ordinal);
        if (blank < 0 || !header.AsSpan(0, blank).Equals("bearer", StringComparison.OrdinalIgnoreCase))
            return false;
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes(header[(blank + 1)..]));
        return Array.Exists(_keys, key => CryptographicOperations.FixedTimeEquals(key, hash));
    }
}
