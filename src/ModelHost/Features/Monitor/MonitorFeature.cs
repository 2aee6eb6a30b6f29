using System.Text.Json;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.OpenApi;
using ModelHost.Access;
using ModelHost.Common;
using ModelHost.Core;

namespace ModelHost.Features.Monitor;

/// <summary>LocalAI's routes about what runs: monitor, shutdown, token metrics, system.</summary>
internal static class MonitorFeature
{
    private const string MissingModel = "model is required";

    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web) { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    /// <summary>Adds the services.</summary>
    public static IServiceCollection AddMonitor(this IServiceCollection services)
    {
        services.AddCheckedOptions<MonitorOptions>(MonitorOptions.Section);
        return services.AddSingleton<BackendMonitor>().AddSingleton<BackendShutdown>();
    }

    /// <summary>Maps the routes, each also under <c>/v1</c>.</summary>
    public static void MapMonitor(this IEndpointRouteBuilder routes)
    {
        foreach (var (prefix, suffix) in (ReadOnlySpan<(string, string)>)[("", ""), ("/v1", "V1")])
        {
            var backend = routes.MapLocalAi(prefix + "/backend", AccessRule.Admin).WithTags("Backends");
            DescribeBoth<BackendStatus>(backend.MapGet("/monitor", MonitorAsync), backend.MapPost("/monitor", MonitorAsync), "BackendMonitor" + suffix, "The state and memory of a model's engine.");
            Describe<ShutdownRequest>(backend.MapPost("/shutdown", ShutdownAsync), "ShutdownBackend" + suffix, "Stop what serves a model, when its calls have ended.")
                .Produces<ShutdownAnswer>();
            var tokens = routes.MapGroup(prefix).WithMetadata(LocalAiRoute.Instance).AdminOnly().WithTags("Backends");
            DescribeBoth<TokenMetrics>(tokens.MapGet("/tokenMetrics", TokensAsync), tokens.MapPost("/tokenMetrics", TokensAsync), "TokenMetrics" + suffix, "The tokens of a model since its engine began.");
        }
        routes.MapGet("/system", SystemAsync).WithMetadata(LocalAiRoute.Instance).AdminOnly().WithTags("Backends")
            .WithName("GetSystem").WithSummary("The backends that can be started, and the models that run.").Produces<SystemInformation>();
    }

    // clients send the body with GET, as the published page says, or by POST, as curl does with its example
    private static void DescribeBoth<TAnswer>(RouteHandlerBuilder get, RouteHandlerBuilder post, string name, string summary)
    {
        get.WithName("Get" + name).WithSummary(summary).Produces<TAnswer>().ProducesLocalAiErrors();
        Describe<ModelRequest>(post, "Post" + name, summary).Produces<TAnswer>();
    }

    // the body is read by hand: there may be none, and GET has none for the framework
    private static RouteHandlerBuilder Describe<TRequest>(RouteHandlerBuilder route, string name, string summary) where TRequest : notnull =>
        route.WithName(name).WithSummary(summary).ProducesLocalAiErrors().AddOpenApiOperationTransformer(async (operation, context, cancellationToken) =>
            operation.RequestBody = new OpenApiRequestBody
            {
                Content = new Dictionary<string, OpenApiMediaType>
                {
                    ["application/json"] = new() { Schema = await context.GetOrCreateSchemaAsync(typeof(TRequest), null, cancellationToken) },
                },
            });

    private static RouteHandlerBuilder ProducesLocalAiErrors(this RouteHandlerBuilder route)
    {
        foreach (var status in (int[])[400, 401, 415, 500])
            route.Produces<LocalAiErrorBody>(status);
        return route;
    }

    private static async Task<IResult> MonitorAsync(HttpRequest request, string? model, BackendMonitor monitor, CancellationToken cancellationToken)
    {
        if (!(await ReadAsync(request, model, cancellationToken)).TryGet(out var asked, out var failure))
            return ToAnswer(failure);
        if (string.IsNullOrWhiteSpace(asked.Model))
            return LocalAiErrors.ToAnswer(StatusCodes.Status400BadRequest, "model query parameter is required");
        return (await monitor.StatusAsync(asked.Model, cancellationToken)).Match(TypedResults.Ok, ToAnswer);
    }

    private static async Task<IResult> TokensAsync(HttpRequest request, string? model, BackendMonitor monitor, CancellationToken cancellationToken)
    {
        if (!(await ReadAsync(request, model, cancellationToken)).TryGet(out var asked, out var failure))
            return ToAnswer(failure);
        if (string.IsNullOrWhiteSpace(asked.Model))
            return LocalAiErrors.ToAnswer(StatusCodes.Status400BadRequest, MissingModel);
        return (await monitor.TokensAsync(asked.Model, cancellationToken)).Match(TypedResults.Ok, ToAnswer);
    }

    private static async Task<IResult> ShutdownAsync(HttpRequest request, BackendShutdown shutdown, CancellationToken cancellationToken)
    {
        if (!(await ReadAsync(request, null, cancellationToken)).TryGet(out var asked, out var failure))
            return ToAnswer(failure);
        if (string.IsNullOrWhiteSpace(asked.Model))
            return LocalAiErrors.ToAnswer(StatusCodes.Status400BadRequest, MissingModel);
        return await shutdown.StopAsync(asked.Model, asked.Force ?? false, cancellationToken) is { } refusal
            ? ToAnswer(refusal) : TypedResults.Ok(new ShutdownAnswer("model stopped"));
    }

    private static async Task<IResult> SystemAsync(BackendMonitor monitor, CancellationToken cancellationToken) =>
        TypedResults.Ok(await monitor.SystemAsync(cancellationToken));

    /// <summary>What was asked: by the query, else by a JSON body, if there is one.</summary>
    private static async Task<Result<ShutdownRequest>> ReadAsync(HttpRequest request, string? model, CancellationToken cancellationToken)
    {
        if (!string.IsNullOrWhiteSpace(model) || request.ContentLength == 0 || request.HttpContext.Features.Get<IHttpRequestBodyDetectionFeature>()?.CanHaveBody != true)
            return new ShutdownRequest { Model = model };
        if (!string.IsNullOrEmpty(request.ContentType) && !request.HasJsonContentType())
            return new Failure(FailureKind.Unavailable, "body.not_json", "The body must be JSON, with Content-Type: application/json.");
        try
        {
            return await JsonSerializer.DeserializeAsync<ShutdownRequest>(request.Body, Json, cancellationToken) ?? new ShutdownRequest();
        }
        catch (JsonException e)
        {
            return Failure.Invalid("", e.Path is "$.model" or "$.force" ? $"{e.Path[2..]}: has the wrong type" : "the body is not a JSON object");
        }
    }

    // LocalAI answers with 500 to everything but a fault of the request itself
    private static IResult ToAnswer(Failure failure) => LocalAiErrors.ToAnswer(
        failure.Kind == FailureKind.Invalid ? StatusCodes.Status400BadRequest
        : failure.Code == "body.not_json" ? StatusCodes.Status415UnsupportedMediaType : StatusCodes.Status500InternalServerError, failure.Detail);
}
