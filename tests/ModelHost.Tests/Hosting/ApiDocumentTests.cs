using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.TestKit;

namespace ModelHost.Tests.Hosting;

public sealed class ApiDocumentTests
{
    [Fact]
    public async Task Document_and_routes_are_the_same_list()
    {
        await using var host = await ControlPlane.StartAsync();
        var document = await host.Client.JsonAsync("/openapi.json");

        var mapped = host.Services.GetServices<EndpointDataSource>().SelectMany(source => source.Endpoints).OfType<RouteEndpoint>()
            .Where(endpoint => endpoint.RoutePattern.RawText is { } path && !path.EndsWith("/{**path}", StringComparison.Ordinal)
                && !((string[])["swagger", "docs", "redoc", "openapi.json"]).Contains(path.Trim('/').Split('/')[0]))
            .SelectMany(endpoint => endpoint.Metadata.GetMetadata<HttpMethodMetadata>()?.HttpMethods.Select(method => $"{method} {Path(endpoint)}") ?? [$"ANY {Path(endpoint)}"])
            .Where(operation => !operation.StartsWith("CONNECT ", StringComparison.Ordinal)) // OpenAPI has no such operation
            .Distinct();
        var documented = document.GetProperty("paths").EnumerateObject()
            .SelectMany(path => path.Value.EnumerateObject().Select(operation => $"{operation.Name.ToUpperInvariant()} {path.Name}"));

        documented.ShouldBe(mapped, ignoreOrder: true);
        documented.ShouldContain("POST /api/deployments/start");
    }

    [Fact]
    public async Task Every_operation_has_a_name_a_summary_and_a_tag()
    {
        await using var host = await ControlPlane.StartAsync();
        var document = await host.Client.JsonAsync("/openapi.json");

        var operations = document.GetProperty("paths").EnumerateObject().SelectMany(path => path.Value.EnumerateObject().Select(o => o.Value)).ToArray();

        operations.ShouldAllBe(operation => operation.GetProperty("summary").GetString()!.EndsWith('.') && operation.GetProperty("tags").GetArrayLength() == 1);
        operations.Select(operation => operation.GetProperty("operationId").GetString()).ShouldBeUnique();
        document.GetProperty("paths").GetProperty("/v1/chat/completions").GetProperty("post").GetProperty("summary").GetString()!.ShouldStartWith("Create a chat completion");
    }

    [Fact]
    public async Task Schemas_have_json_names_ranges_and_descriptions()
    {
        await using var host = await ControlPlane.StartAsync();
        var schemas = (await host.Client.JsonAsync("/openapi.json")).GetProperty("components").GetProperty("schemas");

        var names = schemas.EnumerateObject().SelectMany(schema => schema.Value.TryGetProperty("properties", out var properties) ? properties.EnumerateObject().Select(p => p.Name) : []);
        var start = schemas.GetProperty("DeploymentStart");

        // LocalAI writes these so
        string[] others = ["Name", "RunFile", "IsMeta", "IsSystem", "Metadata", "jobID", "statusUrl", "galleryElementName"];
        names.Except(others).ShouldAllBe(name => name.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '_'));
        start.GetProperty("required").EnumerateArray().Select(name => name.GetString()).ShouldBe(["node_id", "model_name", "port", "gpu_memory_fraction", "owner"], ignoreOrder: true);
        var port = start.GetProperty("properties").GetProperty("port");
        (port.GetProperty("minimum").GetInt32(), port.GetProperty("maximum").GetInt32()).ShouldBe((1024, 65535));
        start.GetProperty("properties").EnumerateObject().ShouldAllBe(property => IsDescribed(property.Value));
    }

    [Fact]
    public async Task Descriptions_name_nothing_of_the_source()
    {
        await using var host = await ControlPlane.StartAsync();
        static IEnumerable<string> Descriptions(JsonElement element) => element.ValueKind switch
        {
            JsonValueKind.Object => element.EnumerateObject().SelectMany(property =>
                property is { Name: "description" or "summary", Value.ValueKind: JsonValueKind.String } ? [property.Value.GetString()!] : Descriptions(property.Value)),
            JsonValueKind.Array => element.EnumerateArray().SelectMany(Descriptions),
            _ => [],
        };

        var descriptions = Descriptions(await host.Client.JsonAsync("/openapi.json")).ToArray();

        descriptions.Length.ShouldBeGreaterThan(500);
        // a reference to a member is written out as its type and its class
        descriptions.ShouldNotContain(text => Regex.IsMatch(text, @"\b(string|int|bool|long|double)\b(\?|\[\])* [A-Z]\w*\.[A-Z]|\b[A-Z][a-z]+[A-Z]\w*\.[A-Z]\w+"));
    }

    // the build-time generator takes a list without a default value for required
    [Fact]
    public async Task Lists_of_the_query_may_be_left_out()
    {
        await using var host = await ControlPlane.StartAsync();

        var lists = (await host.Client.JsonAsync("/openapi.json")).GetProperty("paths").EnumerateObject().SelectMany(path => path.Value.EnumerateObject())
            .SelectMany(operation => operation.Value.TryGetProperty("parameters", out var parameters) ? parameters.EnumerateArray() : [])
            .Where(parameter => parameter.GetProperty("in").GetString() == "query" && parameter.GetProperty("schema").TryGetProperty("items", out _)).ToArray();

        lists.Length.ShouldBeGreaterThan(2);
        lists.Where(parameter => parameter.TryGetProperty("required", out _)).Select(parameter => parameter.GetRawText()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Requests_that_install_have_examples_that_are_taken_as_they_stand()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");
        var operations = (await host.Client.JsonAsync("/openapi.json")).GetProperty("paths").EnumerateObject()
            .Where(path => Regex.IsMatch(path.Name, "^/(models|backends|api/nodes/{id}/backends)(/|$)"))
            .SelectMany(path => path.Value.EnumerateObject().Select(operation => (Path: path.Name.Replace("{id}", "1", StringComparison.Ordinal), Method: new HttpMethod(operation.Name), operation.Value)))
            .Where(operation => operation.Value.TryGetProperty("requestBody", out _)).OrderBy(operation => operation.Method == HttpMethod.Delete).ToArray();

        operations.Length.ShouldBe(7);
        foreach (var (path, method, operation) in operations)
        {
            foreach (var example in operation.GetProperty("requestBody").GetProperty("content").GetProperty("application/json").GetProperty("examples").EnumerateObject())
            {
                using var request = new HttpRequestMessage(method, path) { Content = JsonContent.Create(example.Value.GetProperty("value")) };
                using var answer = await host.Client.SendAsync(request, TestContext.Current.CancellationToken);
                var body = await answer.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
                // what is to be deleted is not there
                if (path.EndsWith("/delete", StringComparison.Ordinal))
                    answer.StatusCode.ShouldBe(HttpStatusCode.NotFound, body);
                else
                    answer.IsSuccessStatusCode.ShouldBeTrue($"{path}, {example.Name}: {body}");
            }
        }
    }

    [Fact]
    public async Task Every_request_body_has_an_example_and_those_of_launches_work_as_they_stand()
    {
        await using var host = await ControlPlane.StartAsync();
        await host.Client.NodeAsync("process");
        var paths = (await host.Client.JsonAsync("/openapi.json")).GetProperty("paths");
        JsonElement Example(JsonElement operation) => operation.GetProperty("requestBody").GetProperty("content").GetProperty("application/json")
            .GetProperty("examples").EnumerateObject().First().Value.GetProperty("value");

        var bodies = paths.EnumerateObject().Where(path => path.Name.StartsWith("/api/deployments", StringComparison.Ordinal))
            .SelectMany(path => path.Value.EnumerateObject().Select(operation => (path.Name, operation.Value)))
            .Where(operation => operation.Value.TryGetProperty("requestBody", out _)).ToDictionary(operation => operation.Name, operation => Example(operation.Value));

        bodies.Count.ShouldBe(8);
        foreach (var path in (string[])["/api/deployments/plan", "/api/deployments", "/api/deployments/from-manifest"])
        {
            using var answer = await host.Client.PostAsJsonAsync(path, bodies[path], TestContext.Current.CancellationToken);
            var body = await answer.Content.ReadFromJsonAsync<JsonElement>(TestContext.Current.CancellationToken);
            answer.IsSuccessStatusCode.ShouldBeTrue($"{path}: {body}");
            if (path.EndsWith("manifest", StringComparison.Ordinal))
                await host.Client.StopModelAsync(body.GetProperty("id").GetInt32());
        }
    }

    [Fact]
    public async Task Examples_of_keys_work_as_they_stand()
    {
        await using var host = await ControlPlane.StartAsync();
        var operation = (await host.Client.JsonAsync("/openapi.json")).GetProperty("paths").GetProperty("/api/api-keys").GetProperty("post");

        foreach (var example in operation.GetProperty("requestBody").GetProperty("content").GetProperty("application/json").GetProperty("examples").EnumerateObject())
        {
            using var answer = await host.Client.PostAsJsonAsync("/api/api-keys", example.Value.GetProperty("value"), TestContext.Current.CancellationToken);
            answer.IsSuccessStatusCode.ShouldBeTrue(example.Name);
        }
    }

    private static bool IsDescribed(JsonElement schema) => schema.TryGetProperty("description", out var text) && text.GetString()!.Length > 0;

    private static string Path(RouteEndpoint endpoint) =>
        "/" + System.Text.RegularExpressions.Regex.Replace(endpoint.RoutePattern.RawText!.Trim('/'), @"\{\**(\w+)[^}]*\}", "{$1}");
}
