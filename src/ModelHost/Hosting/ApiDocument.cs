using System.ComponentModel.DataAnnotations;
using System.Text;
using Microsoft.OpenApi;
using ModelHost.Access;
using ModelHost.Features.Nodes;
using ModelHost.Gateway;

namespace ModelHost.Hosting;

/// <summary>The OpenAPI document and the pages that show it.</summary>
internal static class ApiDocument
{
    private const string Path = "/openapi.json";

    // the package's own page asks other hosts for fonts and a logo, which leaves gaps where they cannot be reached, and tells them who reads
    private const string RedocPage = """
        <!doctype html>
        <html lang="en">
        <head>
            <title>%(DocumentTitle)</title>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <link rel="icon" href="data:,">
            <link href="index.css" rel="stylesheet">
            <script>
                // pictures of other hosts become a transparent one; React sets the attribute, and then the property to see it load
                const own = url => new URL(url, location).host === location.host ? url
                    : 'data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==';
                const image = HTMLImageElement.prototype, src = Object.getOwnPropertyDescriptor(image, 'src');
                Object.defineProperty(image, 'src', { ...src, set(url) { src.set.call(this, own(url)); } });
                image.setAttribute = function (name, value) {
                    Element.prototype.setAttribute.call(this, name, name === 'src' ? own(value) : value);
                };
            </script>
            %(HeadContent)
        </head>
        <body>
            <div id="redoc-container"></div>
            <script src="redoc.standalone.js"></script>
            <script src="index.js"></script>
        </body>
        </html>
        """;

    // in the order in which the pages show them
    private static readonly (string Name, string Description)[] Tags =
    [
        ("OpenAI", "What OpenAI's SDKs call: requests go to the engine that serves their model."),
        ("Backends", "Engines: how they do, which there are, and the jobs that install them."),
        ("Models", "What can be installed and served, and the jobs that install it."),
        ("Stores", "Vectors with values, found again by what is near them."),
        ("Deployments", "Models that are served: start, watch, stop."),
        ("Nodes", "The machines that run engines, with their GPUs."),
        ("Configs", "Fields of deployments, saved under names."),
        ("API Keys", "Who may use which models."),
        ("Usage", "What they used: requests and tokens."),
        ("Settings", "What can be changed while ModelHost runs."),
        ("Events", "What has changed, told at once."),
        ("Admin", "What only an administrator does, seldom."),
        ("Health", "Probes, and what there is to know about this host."),
        ("Metrics", "For Prometheus."),
    ];

    /// <summary>Adds the document.</summary>
    public static void AddApiDocument(this IServiceCollection services) =>
        services.AddOpenApi("v1", options =>
        {
            options.AddDocumentTransformer((document, context, _) => DescribeAsync(document, context.ApplicationServices));
            options.AddSchemaTransformer((schema, context, _) =>
            {
                // a request's property is nullable to tell "missing" from a value; the document need not show that
                if (context.JsonPropertyInfo?.AttributeProvider?.IsDefined(typeof(RequiredAttribute), inherit: false) == true)
                    schema.Type &= ~JsonSchemaType.Null;
                return Task.CompletedTask;
            });
        });

    private static Task DescribeAsync(OpenApiDocument document, IServiceProvider services)
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
                Description = "The admin key, or for /v1 and /metrics an API key. From this machine none is needed while ModelHost is bound to loopback, "
                    + "and for /v1 as long as there is no permanent API key.",
            },
        };
        document.Security = [new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference("key", document)] = [] }];
        document.Tags = new HashSet<OpenApiTag>(Tags.Select(tag => new OpenApiTag { Name = tag.Name, Description = tag.Description }));
        ApiExamples.Add(document, services.GetRequiredService<RouteSource>(), services.GetRequiredService<NodeRegistry>());
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
                options.DefaultModelsExpandDepth(0);
            }).Public();
        }
        routes.MapReDoc("redoc", options =>
        {
            options.DocumentTitle = "ModelHost API";
            options.SpecUrl("../openapi.json");
            options.IndexStream = static () => new MemoryStream(Encoding.UTF8.GetBytes(RedocPage));
        }).Public();
    }
}
