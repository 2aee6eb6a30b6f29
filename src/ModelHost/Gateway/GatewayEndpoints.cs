using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.Extensions.Options;
using Microsoft.OpenApi;
using ModelHost.Access;
using ModelHost.Agent.Http;
using ModelHost.Common;
using ModelHost.Core.Routing;

namespace ModelHost.Gateway;

/// <summary>The OpenAI-compatible routes.</summary>
internal static class GatewayEndpoints
{
    private static readonly int[] ErrorStatuses =
    [
        StatusCodes.Status400BadRequest, StatusCodes.Status401Unauthorized, StatusCodes.Status403Forbidden, StatusCodes.Status404NotFound, StatusCodes.Status413PayloadTooLarge,
        StatusCodes.Status415UnsupportedMediaType, StatusCodes.Status501NotImplemented, StatusCodes.Status502BadGateway, StatusCodes.Status503ServiceUnavailable, StatusCodes.Status504GatewayTimeout,
    ];

    /// <summary>Adds the gateway.</summary>
    public static IServiceCollection AddGateway(this IServiceCollection services)
    {
        services.AddCheckedOptions<GatewayOptions>(GatewayOptions.Section);
        services.AddHttpForwarder();
        services.AddSingleton<GatewayDrain>().AddHostedService(provider => provider.GetRequiredService<GatewayDrain>());
        return services.AddSingleton<RouteSource>().AddSingleton<HeldRequests>().AddSingleton<EngineForwarder>().AddSingleton<GatewayMeters>().AddSingleton<BackendConnections>().AddSingleton<Grpc.GrpcAdapter>();
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
        void Map<TRequest>(GatewayRoute route, string name, string summary) where TRequest : notnull =>
            MapForwarded<TRequest>(group, forward, route, name, summary);

        Map<ChatCompletionRequest>(GatewayRoutes.ChatCompletions, "CreateChatCompletion", "Create a chat completion, streamed if asked for.");
        Map<CompletionRequest>(GatewayRoutes.Completions, "CreateCompletion", "Create a text completion, streamed if asked for.");
        Map<EmbeddingRequest>(GatewayRoutes.Embeddings, "CreateEmbedding", "Create embeddings.");
        Map<ResponsesRequest>(GatewayRoutes.Responses, "CreateResponse", "Create a response in OpenAI's newer form, streamed if asked for.");
        Map<MessagesRequest>(GatewayRoutes.Messages, "CreateMessage", "Create a message in Anthropic's form, streamed if asked for.");
        Map<MessagesRequest>(GatewayRoutes.MessageTokens, "CountMessageTokens", "Count the tokens of a request for a message.");
        Map<RerankRequest>(GatewayRoutes.Rerank, "Rerank", "Order documents by how well they match a query.");
        Map<ScoreRequest>(GatewayRoutes.Score, "Score", "Score pairs of texts.");
        Map<EmbeddingRequest>(GatewayRoutes.Classify, "Classify", "Classify texts.");
        Map<EmbeddingRequest>(GatewayRoutes.Pooling, "Pool", "Read a model's hidden states.");
        Map<TokenizeRequest>(GatewayRoutes.Tokenize, "Tokenize", "Split a text into the tokens of a model; LocalAI's content is taken for prompt.");
        Map<DetokenizeRequest>(GatewayRoutes.Detokenize, "Detokenize", "Put tokens of a model together to a text.");
        Map<SpeechRequest>(GatewayRoutes.Speech, "CreateSpeech", "Speak a text.");
        Map<FileForm>(GatewayRoutes.Transcriptions, "CreateTranscription", "Write down speech.");
        Map<FileForm>(GatewayRoutes.Translations, "CreateTranslation", "Translate speech.");
        Map<ImageRequest>(GatewayRoutes.ImageGenerations, "CreateImage", "Create images.");
        Map<FileForm>(GatewayRoutes.ImageEdits, "EditImage", "Change images.");
        Map<FileForm>(GatewayRoutes.ImageVariations, "VaryImage", "Create variations of an image.");
        MapForwarded<SpeechRequest>(
            routes.MapGroup("").WithTags("OpenAI").ForInference().WithMetadata(OpenAiRoute.Instance, new BodyLimit(limit)), forward,
            GatewayRoutes.TextToSpeech, "TextToSpeech", "Speak a text, as LocalAI's clients ask.");
        var models = group.MapGroup("").AddEndpointFilter(static (invocation, next) =>
        {
            invocation.HttpContext.Response.Headers[RequestId.Header] = RequestId.Of(invocation.HttpContext);
            return next(invocation);
        });
        models.MapGet("/models", Models).WithName("ListModels").WithSummary("List the models that can be asked for.");
        models.MapGet("/models/{**model}", Model).WithName("GetModel").WithSummary("Read one of the models that can be asked for.")
            .Produces<ModelCard>().Produces<OpenAiErrorBody>(StatusCodes.Status403Forbidden).Produces<OpenAiErrorBody>(StatusCodes.Status404NotFound);
        group.Map("/{**path}", NoRoute).ExcludeFromDescription();
    }

    // A RequestDelegate, and its body told to the document alone: a handler's filters and a matcher of content types would cost each
    // request more than everything the gateway itself does. The gateway's own histogram says more than the host's of the same requests.
    private static void MapForwarded<TRequest>(RouteGroupBuilder group, RequestDelegate forward, GatewayRoute route, string name, string summary) where TRequest : notnull =>
        group.MapPost(route.Path, forward).DisableHttpMetrics().DisableValidation().WithMetadata(route)
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
                        [route.Body == BodyKind.Json ? "application/json" : "multipart/form-data"] = new() { Schema = await context.GetOrCreateSchemaAsync(typeof(TRequest), null, cancellationToken) },
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
        table.Routes.Where(route => route.IsListed).SelectMany(route =>
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

/// <summary>Something to respond to. Further fields of OpenAI and of the engine are passed on.</summary>
internal sealed record ResponsesRequest
{
    public required string Model { get; init; }
    public required string Input { get; init; }
    public bool? Stream { get; init; }
    public int? MaxOutputTokens { get; init; }
}

/// <summary>Messages to go on with. Further fields of Anthropic and of the engine are passed on.</summary>
internal sealed record MessagesRequest
{
    public required string Model { get; init; }
    public required IReadOnlyList<ChatMessage> Messages { get; init; }
    public bool? Stream { get; init; }
    public int? MaxTokens { get; init; }
}

/// <summary>Documents to order.</summary>
internal sealed record RerankRequest
{
    public required string Model { get; init; }
    public required string Query { get; init; }
    public required IReadOnlyList<string> Documents { get; init; }
    public int? TopN { get; init; }
}

/// <summary>Pairs to score: the first text with each of the second ones.</summary>
internal sealed record ScoreRequest
{
    public required string Model { get; init; }
    [JsonPropertyName("text_1")]
    public required string Text1 { get; init; }
    [JsonPropertyName("text_2")]
    public required IReadOnlyList<string> Text2 { get; init; }
}

/// <summary>A text to split. Further fields of the engine are passed on.</summary>
internal sealed record TokenizeRequest
{
    public required string Model { get; init; }
    public required string Prompt { get; init; }
}

/// <summary>Tokens to put together.</summary>
internal sealed record DetokenizeRequest
{
    public required string Model { get; init; }
    public required IReadOnlyList<int> Tokens { get; init; }
}

/// <summary>A text to speak. Further fields of OpenAI and of the engine are passed on.</summary>
internal sealed record SpeechRequest
{
    public required string Model { get; init; }
    public required string Input { get; init; }
    public string? Voice { get; init; }
}

/// <summary>An image to create. Further fields of OpenAI and of the engine are passed on.</summary>
internal sealed record ImageRequest
{
    public required string Model { get; init; }
    public required string Prompt { get; init; }
}

/// <summary>A form with a file (audio: file, images: image) in any order. Further fields of OpenAI and of the engine are passed on.</summary>
internal sealed record FileForm
{
    public required string Model { get; init; }
    public IFormFile? File { get; init; }
}

/// <summary>A text to embed. Further fields of OpenAI and of the engine are passed on.</summary>
internal sealed record EmbeddingRequest
{
    public required string Model { get; init; }
    public required string Input { get; init; }
}
