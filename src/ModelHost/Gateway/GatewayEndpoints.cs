using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.Extensions.Options;
using Microsoft.OpenApi;
using ModelHost.Access;
using ModelHost.Common;
using ModelHost.Core.Routing;

namespace ModelHost.Gateway;

/// <summary>The OpenAI-compatible routes.</summary>
internal static class GatewayEndpoints
{
    private static readonly int[] ErrorStatuses =
    [
        StatusCodes.Status400BadRequest, StatusCodes.Status401Unauthorized, StatusCodes.Status403Forbidden, StatusCodes.Status404NotFound, StatusCodes.Status413PayloadTooLarge,
        StatusCodes.Status415UnsupportedMediaType, StatusCodes.Status502BadGateway, StatusCodes.Status503ServiceUnavailable, StatusCodes.Status504GatewayTimeout,
    ];

    /// <summary>Adds the gateway.</summary>
    public static IServiceCollection AddGateway(this IServiceCollection services)
    {
        services.AddCheckedOptions<GatewayOptions>(GatewayOptions.Section);
        services.AddHttpForwarder();
        return services.AddSingleton<RouteSource>().AddSingleton<EngineForwarder>().AddSingleton<GatewayMeters>();
    }

    /// <summary>Lets the gateway be switched off; after routing.</summary>
    public static void UseGatewaySwitch(this IApplicationBuilder app) => app.UseMiddleware<GatewaySwitch>();

    /// <summary>Maps <c>/v1</c>.</summary>
    public static void MapGateway(this IEndpointRouteBuilder routes)
    {
        var limit = routes.ServiceProvider.GetRequiredService<IOptions<GatewayOptions>>().Value.MaxRequestBytes;
        var group = routes.MapGroup("/v1").WithTags("OpenAI").ForInference()
            .WithMetadata(OpenAiRoute.Instance, new BodyLimit(limit));
        RequestDelegate forward = routes.ServiceProvider.GetRequiredService<EngineForwarder>().ForwardAsync;
        MapForwarded<ChatCompletionRequest>(group, forward, "/chat/completions", "CreateChatCompletion", "Create a chat completion, streamed if asked for.");
        MapForwarded<CompletionRequest>(group, forward, "/completions", "CreateCompletion", "Create a text completion, streamed if asked for.");
        MapForwarded<EmbeddingRequest>(group, forward, "/embeddings", "CreateEmbedding", "Create embeddings.");
        group.MapGet("/models", Models).WithName("ListModels").WithSummary("List the models that can be asked for.");
        group.MapGet("/models/{**model}", Model).WithName("GetModel").WithSummary("Read one of the models that can be asked for.")
            .Produces<ModelCard>().Produces<OpenAiErrorBody>(StatusCodes.Status403Forbidden).Produces<OpenAiErrorBody>(StatusCodes.Status404NotFound);
        group.Map("/{**path}", NoRoute).ExcludeFromDescription();
    }

    // A RequestDelegate, and its body told to the document alone: a handler's filters and a matcher of content types would cost each
    // request more than everything the gateway itself does. The gateway's own histogram says more than the host's of the same requests.
    private static void MapForwarded<TRequest>(RouteGroupBuilder group, RequestDelegate forward, string path, string name, string summary) where TRequest : notnull =>
        group.MapPost(path, forward).DisableHttpMetrics().DisableValidation()
            .WithMetadata(forward.Method) // what the document knows routes by
            .WithName(name).WithSummary(summary)
            .AddOpenApiOperationTransformer(async (operation, context, cancellationToken) =>
            {
                operation.Summary = summary; // not that of the method, which is the same for all
                operation.RequestBody = new OpenApiRequestBody
                {
                    Required = true,
                    Content = new Dictionary<string, OpenApiMediaType>
                    {
                        ["application/json"] = new() { Schema = await context.GetOrCreateSchemaAsync(typeof(TRequest), null, cancellationToken) },
                    },
                };
            })
            .WithMetadata(new ProducesResponseTypeMetadata(StatusCodes.Status200OK, typeof(JsonElement), ["application/json", "text/event-stream"]))
            .WithMetadata([.. ErrorStatuses.Select(status => new ProducesResponseTypeMetadata(status, typeof(OpenAiErrorBody), ["application/json"]))]);

    private static Ok<ModelList> Models(HttpContext context, RouteSource routes) =>
        TypedResults.Ok(new ModelList([.. Cards(routes.Current, context.RouteScope() ?? RouteScope.All)]));

    private static IResult Model(string model, HttpContext context, RouteSource routes)
    {
        var (table, scope) = (routes.Current, context.RouteScope() ?? RouteScope.All);
        if (Cards(table, scope).FirstOrDefault(card => card.Id == model) is { } card)
            return TypedResults.Ok(card);
        var (status, error) = Cards(table, RouteScope.All).Any(card => card.Id == model)
            ? (StatusCodes.Status403Forbidden, OpenAiErrors.ModelForbidden(model))
            : (StatusCodes.Status404NotFound, OpenAiErrors.NotFound(model, table.NamesIn(scope)));
        return TypedResults.Json(new OpenAiErrorBody(error), OpenAiErrorJson.Readable.OpenAiErrorBody, statusCode: status);
    }

    private static IEnumerable<ModelCard> Cards(RouteTable table, RouteScope scope) =>
        table.Routes.Where(route => route.IsRoutable).SelectMany(route =>
        {
            var created = route.CreatedAt.ToUnixTimeSeconds();
            return ((IEnumerable<ModelCard>)
            [
                new ModelCard(route.PublicName, created, route.Owner, route.ModelName, null),
                .. route.LoraNames.Select(lora => new ModelCard(lora, created, route.Owner, lora, route.PublicName)),
            ]).Where(card => scope.Allows(route, card.Id));
        }).DistinctBy(card => card.Id);

    private static Task NoRoute(HttpContext context) =>
        OpenAiErrors.WriteAsync(context, StatusCodes.Status404NotFound, OpenAiErrors.NoRoute(context.Request.Method, context.Request.Path.Value ?? ""));

    private sealed record BodyLimit(long? MaxRequestBodySize) : IRequestSizeLimitMetadata;
}

/// <summary>The models that can be asked for.</summary>
internal sealed record ModelList(IReadOnlyList<ModelCard> Data)
{
    [JsonPropertyOrder(-1)]
    public string Object { get; init; } = "list";
}

/// <summary>A model that can be asked for.</summary>
internal sealed record ModelCard(string Id, long Created, string OwnedBy, string Root, string? Parent)
{
    public string Object { get; init; } = "model";
}

// The requests below are described for people and tools; the gateway reads nothing of them but the model, and forwards them as they came.

/// <summary>A chat to go on with. Further fields of OpenAI and of the engine are passed on.</summary>
internal sealed record ChatCompletionRequest
{
    public required string Model { get; init; }
    public required IReadOnlyList<ChatMessage> Messages { get; init; }
    public bool? Stream { get; init; }
    public int? MaxCompletionTokens { get; init; }
    public double? Temperature { get; init; }
}

/// <summary>A message of a chat.</summary>
internal sealed record ChatMessage
{
    public required string Role { get; init; }
    public required string Content { get; init; }
}

/// <summary>A text to go on with. Further fields of OpenAI and of the engine are passed on.</summary>
internal sealed record CompletionRequest
{
    public required string Model { get; init; }
    public required string Prompt { get; init; }
    public bool? Stream { get; init; }
    public int? MaxTokens { get; init; }
}

/// <summary>A text to embed. Further fields of OpenAI and of the engine are passed on.</summary>
internal sealed record EmbeddingRequest
{
    public required string Model { get; init; }
    public required string Input { get; init; }
}
