using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;
using ModelHost.Access;

namespace ModelHost.Hosting;

/// <summary>The OpenAPI document and the pages that show it.</summary>
internal static class ApiDocument
{
    private const string Path = "/openapi.json";

    /// <summary>Adds the document.</summary>
    public static void AddApiDocument(this IServiceCollection services) =>
        services.AddOpenApi("v1", options => options.AddSchemaTransformer(RequiredIsNotNull).AddDocumentTransformer((document, _, _) =>
        {
            document.Info = new OpenApiInfo
            {
                Title = "ModelHost",
                Version = typeof(ApiDocument).Assembly.GetName().Version?.ToString(3) ?? "",
                Description = "Serve models on your GPU servers behind one OpenAI-compatible endpoint.",
            };
            document.Components ??= new OpenApiComponents();
            document.Components.SecuritySchemes = new Dictionary<string, IOpenApiSecurityScheme>
            {
                ["key"] = new OpenApiSecurityScheme
                {
                    Type = SecuritySchemeType.Http,
                    Scheme = "bearer",
                    Description = "The admin key; from this machine none is needed while ModelHost is bound to loopback.",
                },
            };
            document.Security = [new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference("key", document)] = [] }];
            return Task.CompletedTask;
        }));

    // requests have nullable properties, so that a missing one is named in the answer; a required one may still not be null
    private static Task RequiredIsNotNull(OpenApiSchema schema, OpenApiSchemaTransformerContext context, CancellationToken cancellationToken)
    {
        foreach (var name in schema.Required ?? new HashSet<string>())
        {
            if (schema.Properties is { } properties && properties.TryGetValue(name, out var found) && found is OpenApiSchema { Type: { } type } property)
                property.Type = type & ~JsonSchemaType.Null;
        }
        return Task.CompletedTask;
    }

    /// <summary>Maps the document, Swagger UI at <c>/swagger</c> and <c>/docs</c>, and ReDoc at <c>/redoc</c>.</summary>
    public static void MapApiDocument(this IEndpointRouteBuilder routes)
    {
        routes.MapOpenApi(Path).Public();
        foreach (var pattern in (string[])["swagger", "docs"])
        {
            routes.MapSwaggerUI(pattern, options =>
            {
                options.DocumentTitle = "ModelHost API";
                options.SwaggerEndpoint("../openapi.json", "ModelHost");
            }).Public();
        }
        routes.MapReDoc("redoc", options =>
        {
            options.DocumentTitle = "ModelHost API";
            options.SpecUrl("../openapi.json");
        }).Public();
    }
}
