using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Diagnostics;
using Microsoft.AspNetCore.Routing.Patterns;
using ModelHost.Access;

namespace ModelHost.Common;

/// <summary>An error as LocalAI's clients read it; <paramref name="Type"/> is always there, and mostly empty.</summary>
internal sealed record LocalAiError(int Code, string Message, string Type);

internal sealed record LocalAiErrorBody(LocalAiError Error);

/// <summary>Marks routes whose errors have LocalAI's shape.</summary>
internal sealed class LocalAiRoute
{
    public static LocalAiRoute Instance { get; } = new();
}

/// <summary>The error answers of the routes that LocalAI has.</summary>
internal static class LocalAiErrors
{
    /// <summary>Whether the errors of this request's route have LocalAI's shape.</summary>
    public static bool IsLocalAiRoute(this HttpContext context) =>
        // the endpoint is taken off the request before exceptions are handled
        (context.GetEndpoint() ?? context.Features.Get<IExceptionHandlerFeature>()?.Endpoint)?.Metadata.GetMetadata<LocalAiRoute>() is not null;

    /// <summary>An error as the result of a handler.</summary>
    public static IResult ToAnswer(int status, string message) => TypedResults.Json(Body(status, message), LocalAiErrorJson.Default.LocalAiErrorBody, statusCode: status);

    /// <summary>Writes the error, unless an answer is already under way.</summary>
    public static async Task WriteAsync(HttpContext context, int status, string message)
    {
        if (context.Response.HasStarted)
            return;
        context.Response.StatusCode = status;
        await context.Response.WriteAsJsonAsync(Body(status, message), LocalAiErrorJson.Default.LocalAiErrorBody, cancellationToken: context.RequestAborted);
    }

    /// <summary>Maps a group of LocalAI's routes; what it does not have under its prefix is 404 or 405 in its shape too.</summary>
    /// <param name="routes">Where.</param>
    /// <param name="prefix">The first segments of all their paths.</param>
    /// <param name="rule">Gives them their access rule.</param>
    public static RouteGroupBuilder MapLocalAi(this IEndpointRouteBuilder routes, string prefix, AccessRule rule)
    {
        var group = routes.MapGroup(prefix).WithMetadata(LocalAiRoute.Instance, rule);
        group.Map("/{**path}", NoRoute).ExcludeFromDescription();
        return group;
    }

    private static Task NoRoute(HttpContext context, EndpointDataSource endpoints)
    {
        var path = context.Request.Path.Value!.Trim('/').Split('/');
        var same = endpoints.Endpoints.OfType<RouteEndpoint>().Where(endpoint => IsOf(endpoint.RoutePattern, path)).ToArray();
        // a route of this path and method did not take the type of the body
        if (same.Any(endpoint => endpoint.Metadata.GetMetadata<HttpMethodMetadata>()?.HttpMethods.Contains(context.Request.Method) == true))
            return WriteAsync(context, StatusCodes.Status415UnsupportedMediaType, "The body must be JSON, with Content-Type: application/json.");
        return same.Length > 0 ? WriteAsync(context, StatusCodes.Status405MethodNotAllowed, "Method Not Allowed")
            : WriteAsync(context, StatusCodes.Status404NotFound, "Resource not found");
    }

    private static bool IsOf(RoutePattern pattern, string[] path) => pattern.PathSegments.Count == path.Length && pattern.PathSegments.Zip(path).All(pair =>
        pair.First.Parts is [RoutePatternLiteralPart literal] ? literal.Content.Equals(pair.Second, StringComparison.OrdinalIgnoreCase)
        : pair.First.Parts is [RoutePatternParameterPart { IsCatchAll: false }] && pair.Second.Length > 0);

    private static LocalAiErrorBody Body(int status, string message) => new(status == StatusCodes.Status401Unauthorized
        ? new LocalAiError(status, "An authentication key is required", "invalid_request_error") : new LocalAiError(status, message, ""));
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(LocalAiErrorBody))]
internal sealed partial class LocalAiErrorJson : JsonSerializerContext;
