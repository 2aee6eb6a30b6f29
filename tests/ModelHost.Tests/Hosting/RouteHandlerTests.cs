using System.CodeDom.Compiler;
using System.Net;
using System.Net.Http.Json;
using System.Reflection;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.AspNetCore.Mvc;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Routing.Patterns;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Common;
using ModelHost.TestKit;

namespace ModelHost.Tests.Hosting;

public sealed class RouteHandlerTests
{
    [Fact]
    public async Task Every_handler_is_generated_at_build_time()
    {
        await using var host = await ControlPlane.StartAsync();

        var handlers = Endpoints(host).Where(endpoint => endpoint.Metadata.GetMetadata<IParameterBindingMetadata>() is not null).ToArray();

        handlers.Length.ShouldBeGreaterThan(50);
        handlers.Where(endpoint => endpoint.Metadata.GetMetadata<GeneratedCodeAttribute>() is null).Select(endpoint => endpoint.DisplayName).ShouldBeEmpty();
    }

    [Fact]
    public async Task Every_parameter_that_cannot_be_read_is_named_on_every_route()
    {
        await using var host = await ControlPlane.StartAsync();
        var requests = (from endpoint in Endpoints(host)
                        from parameter in endpoint.Metadata.GetOrderedMetadata<IParameterBindingMetadata>()
                        where parameter.HasTryParse
                        let name = parameter.ParameterInfo.GetCustomAttribute<FromQueryAttribute>()?.Name ?? parameter.Name
                        where endpoint.RoutePattern.GetParameter(name) is null
                        from value in (string[])["", "x"]
                        select (Name: name, Method: endpoint.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods[0], Path: $"{Path(endpoint)}?{name}={value}")).ToArray();

        requests.Length.ShouldBeGreaterThan(40);
        foreach (var (name, method, path) in requests)
        {
            using var request = new HttpRequestMessage(new HttpMethod(method), path) { Content = method == "GET" ? null : JsonContent.Create(new { }) };
            using var answer = await host.Client.SendAsync(request, TestContext.Current.CancellationToken);
            var text = await answer.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
            answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest, $"{method} {path}: {text}");
            var body = JsonElement.Parse(text);
            var detail = body.TryGetProperty("error", out var error) ? error.GetProperty("message") : body.GetProperty("detail");
            detail.GetString().ShouldBe($"{name}: has the wrong form", $"{method} {path}");
        }
    }

    [Theory]
    [InlineData("one", "", "", "id")]
    [InlineData("1", "?day=noday", "", "day")]
    [InlineData("1", "?day=Monday&at_time=yesterday", "", "at_time")]
    [InlineData("1", "?day=Monday&at_time=2026-11-26T17:00:00Z", "1.5", "X-Count")]
    [InlineData("1", "?day=Monday&at_time=2026-11-26T17:00:00Z&at=x&id=x", "2", null)]
    [InlineData("1", "", null, null)]
    public async Task Parameters_are_read_from_where_they_come(string id, string query, string? count, string? wrong)
    {
        var handled = false;
        var handler = (int id, DayOfWeek? day, [FromQuery(Name = "at_time")] DateTimeOffset? at, [FromHeader(Name = "X-Count")] int? count) => { handled = true; };
        await using var app = WebApplication.CreateSlimBuilder().Build();
        app.MapGroup("").WithParameterCheck().MapGet("/{id}", handler).WithMetadata([.. handler.Method.GetParameters().Select(parameter => new Parsable(parameter))]);
        var endpoint = ((IEndpointRouteBuilder)app).DataSources.SelectMany(source => source.Endpoints).Single();
        var context = new DefaultHttpContext { RequestServices = app.Services, Request = { RouteValues = new() { ["id"] = id }, QueryString = new(query) } };
        context.Request.Headers["X-Count"] = count;

        var refusal = await Record.ExceptionAsync(() => endpoint.RequestDelegate!(context));

        handled.ShouldBe(wrong is null);
        refusal?.Message.ShouldContain($" {wrong}\" from ");
        (refusal as BadHttpRequestException)?.StatusCode.ShouldBe(StatusCodes.Status400BadRequest);
        (refusal is null).ShouldBe(wrong is null);
    }

    private static IEnumerable<RouteEndpoint> Endpoints(ControlPlane host) =>
        host.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>();

    // what the build-time generator says of each of these
    private sealed record Parsable(ParameterInfo ParameterInfo) : IParameterBindingMetadata
    {
        public string Name => ParameterInfo.Name!;
        public bool HasTryParse => true;
        public bool HasBindAsync => false;
        public bool IsOptional => ParameterInfo.ParameterType != typeof(int);
    }

    // with a number for each parameter
    private static string Path(RouteEndpoint endpoint) =>
        "/" + string.Join('/', endpoint.RoutePattern.PathSegments.Select(segment => segment.Parts is [RoutePatternLiteralPart literal] ? literal.Content : "1"));
}
