using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Access;
using ModelHost.Common;
using ModelHost.Core.Deployments;
using ModelHost.Data;
using ModelHost.Features.Nodes;
using ModelHost.Gateway;

namespace ModelHost.Features.Welcome;

/// <summary>Whether the host is alive.</summary>
/// <param name="Status"><c>ok</c>.</param>
/// <param name="ModelhostVersion">Version of this build.</param>
internal sealed record Health(string Status, string ModelhostVersion);

/// <summary>The version of this build.</summary>
internal sealed record VersionAnswer(string Version);

/// <summary>The first page, and health.</summary>
internal static class WelcomeFeature
{
    private static readonly string Version = typeof(WelcomeFeature).Assembly.GetName().Version?.ToString(3) ?? "";

    /// <summary>Maps <c>/health</c> under a prefix.</summary>
    public static void MapHealth(this IEndpointRouteBuilder routes, string name) =>
        routes.MapGet("/health", () => TypedResults.Ok(new Health("ok", Version))).WithName(name).WithTags("Health").Public()
            .WithSummary("Whether the control plane is alive.");

    /// <summary>Maps <c>/</c>, <c>/healthz</c> and <c>/readyz</c>.</summary>
    public static void MapWelcome(this IEndpointRouteBuilder routes)
    {
        routes.MapHealth("GetHealth");
        routes.MapGet("/healthz", () => TypedResults.Text("ok")).WithName("GetLiveness").WithTags("Health").Public().WithSummary("Whether the process is alive.")
            .Produces<string>(StatusCodes.Status200OK, "text/plain");
        routes.MapGet("/readyz", ReadyAsync).WithName("GetReadiness").WithTags("Health").Public()
            .WithSummary("Whether the database answers and the routes are known.").Produces<string>(StatusCodes.Status200OK, "text/plain").ProducesProblem(StatusCodes.Status503ServiceUnavailable);
        routes.MapGet("/version", () => TypedResults.Ok(new VersionAnswer(Version))).WithName("GetVersion").WithTags("Health").WithMetadata(LocalAiRoute.Instance).ForInference()
            .WithSummary("The version of this build.");
        routes.MapGet("/", Root).WithName("GetWelcome").WithTags("Health").Public().WithSummary("A short page, or JSON for clients that ask for it.")
            .Produces<JsonElement>(StatusCodes.Status200OK, "application/json").Produces<string>(StatusCodes.Status200OK, "text/html");
    }

    // ours in small letters, and what LocalAI's clients read, without its settings and keys
    private static JsonObject Welcome(IReadOnlyList<string> models, IEnumerable<string> backends, string baseUrl) => new()
    {
        ["name"] = "ModelHost",
        ["version"] = Version,
        ["documentation"] = "swagger",
        ["models"] = new JsonArray([.. models.Select(name => JsonValue.Create(name))]),
        ["Title"] = $"ModelHost API - {Version}",
        ["Version"] = Version,
        ["BaseURL"] = baseUrl,
        ["Models"] = new JsonArray(), // files that no configuration names
        ["ModelsConfig"] = new JsonArray([.. models.Select(name => new JsonObject { ["name"] = name })]),
        ["LoadedModels"] = new JsonObject(models.Select(name => KeyValuePair.Create(name, (JsonNode?)JsonValue.Create(true)))),
        ["IsP2PEnabled"] = false,
        ["GalleryConfig"] = new JsonObject(), // these are empty until there is what they list
        ["ProcessingModels"] = new JsonObject(),
        ["TaskTypes"] = new JsonObject(),
        ["InstalledBackends"] = new JsonObject(backends.Select(name => KeyValuePair.Create(name, (JsonNode?)JsonValue.Create(true)))),
        ["DisableRuntimeSettings"] = false,
    };

    private static async Task<Results<ContentHttpResult, ProblemHttpResult>> ReadyAsync(
        Database database, RouteSource routes, NodeRegistry nodes, GatewayDrain drain, CancellationToken cancellationToken)
    {
        if (drain.IsDraining)
            return TypedResults.Problem("ModelHost is being shut down.", statusCode: StatusCodes.Status503ServiceUnavailable);
        await using var db = await database.OpenAsync(cancellationToken);
        return nodes.All.All(node => routes.Knows(node.Id)) && await db.Database.CanConnectAsync(cancellationToken)
            ? TypedResults.Text("ready")
            : TypedResults.Problem("The routes are not known yet, or the database does not answer.", statusCode: StatusCodes.Status503ServiceUnavailable);
    }

    private static IResult Root(HttpRequest request, RouteSource routes, NodeRegistry nodes)
    {
        var models = routes.Current.Names;
        if (request.HasJsonContentType() || !request.Headers.Accept.ToString().Contains("text/html", StringComparison.OrdinalIgnoreCase))
            return TypedResults.Ok(Welcome(models, nodes.All.SelectMany(node => node.Report?.Backends ?? []).Select(backend => backend.Name).Distinct().Order(StringComparer.Ordinal), $"{request.Scheme}://{request.Host}{request.PathBase}/"));
        var page = new StringBuilder();
        foreach (var route in routes.Current.Routes)
            page.Append("<tr><td>").Append(HtmlEncoder.Default.Encode(route.PublicName)).Append("</td><td>").Append(route.Status.ToWire()).Append("</td></tr>\n");
        return TypedResults.Text($$"""
            <!doctype html>
            <html lang="en"><head><meta charset="utf-8"><title>ModelHost</title><link rel="icon" href="data:,">
            <style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#1a1d21}
            table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #d9dde2}code{background:#f1f3f5;padding:.1rem .3rem}</style></head>
            <body><h1>ModelHost {{Version}}</h1>
            <p>One OpenAI-compatible endpoint for your GPU servers: point an SDK at <code>v1</code> of this address.</p>
            <table><thead><tr><th>Model</th><th>Status</th></tr></thead><tbody>
            {{(page.Length > 0 ? page : "<tr><td colspan=\"2\">Nothing is deployed.</td></tr>")}}</tbody></table>
            <p><a href="swagger">Swagger UI</a> · <a href="redoc">ReDoc</a> · <a href="openapi.json">OpenAPI document</a></p>
            </body></html>
            """, "text/html; charset=utf-8");
    }
}
