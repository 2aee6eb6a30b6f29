using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Diagnostics;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.Mvc;
using Microsoft.Net.Http.Headers;
using ModelHost.Agent.Http;
using ModelHost.Core;
using ModelHost.Data;

namespace ModelHost.Common;

/// <summary>The error answers of everything but <c>/v1</c>: RFC 9457 with <c>detail</c>, a stable <c>code</c>, and <c>errors</c> by JSON name.</summary>
internal static partial class Problems
{
    /// <summary>The status that a refusal has on every surface.</summary>
    public static int Status(this FailureKind kind) => kind switch
    {
        FailureKind.Invalid => StatusCodes.Status400BadRequest,
        FailureKind.NotFound => StatusCodes.Status404NotFound,
        FailureKind.Conflict => StatusCodes.Status409Conflict,
        FailureKind.Unavailable => StatusCodes.Status503ServiceUnavailable,
    };

    /// <summary>A refusal as an answer.</summary>
    public static ProblemHttpResult ToProblem(this Failure failure) => TypedResults.Problem(
        failure.Kind == FailureKind.Invalid && failure.Field is { } field
            ? Invalid(new Dictionary<string, string[]> { [field] = [failure.Detail] }, failure.Code)
            : Make(failure.Kind.Status(), failure.Code, failure.Detail));

    /// <summary>Several faults of one request, by the JSON names of their fields.</summary>
    public static ProblemHttpResult ToProblem(IDictionary<string, string[]> errors) => TypedResults.Problem(Invalid(errors, "validation"));

    /// <summary>A result as an answer: 200 with the value, or the refusal.</summary>
    public static Results<Ok<T>, ProblemHttpResult> ToAnswer<T>(this Result<T> result) =>
        result.Match<Results<Ok<T>, ProblemHttpResult>>(value => TypedResults.Ok(value), failure => failure.ToProblem());

    /// <summary>Checks an object by the attributes of its properties, as a body is checked when it is read.</summary>
    /// <returns>The first fault, or null.</returns>
    public static Failure? Check(object request)
    {
        var wrong = new List<ValidationResult>();
        return Validator.TryValidateObject(request, new ValidationContext(request), wrong, validateAllProperties: true) ? null
            : Failure.Invalid(ToJsonPath(wrong[0].MemberNames.FirstOrDefault() ?? ""), Reword(wrong[0].ErrorMessage ?? ""));
    }

    /// <summary>Adds the problem answers for what the framework refuses by itself: bodies, routes, bugs.</summary>
    public static IServiceCollection AddProblems(this IServiceCollection services)
    {
        services.AddProblemDetails(options => options.CustomizeProblemDetails = context => Customize(context.ProblemDetails));
        services.AddExceptionHandler<BadRequests>();
        // handled or not, whoever is told that something went wrong inside finds it in the log
        services.Configure<ExceptionHandlerOptions>(options => options.SuppressDiagnosticsCallback =
            context => context.HttpContext.Response.StatusCode < StatusCodes.Status500InternalServerError);
        return services;
    }

    /// <summary>Writes a problem where no endpoint result can be returned; on LocalAI's routes its error.</summary>
    public static Task WriteAsync(HttpContext context, int status, string code, string detail)
    {
        if (context.IsLocalAiRoute())
            return LocalAiErrors.WriteAsync(context, status, detail);
        context.Response.StatusCode = status;
        return TypedResults.Problem(Make(status, code, detail)).ExecuteAsync(context);
    }

    /// <summary>Gives answers a body that have but a status.</summary>
    public static void UseStatusPages(this IApplicationBuilder app)
    {
        var pages = new StatusCodePagesOptions();
        app.UseStatusCodePages(context => context.HttpContext.IsLocalAiRoute() ? WriteLocalAiAsync(context.HttpContext, context.HttpContext.Response.StatusCode, null) : pages.HandleAsync(context));
    }

    private static Task WriteLocalAiAsync(HttpContext context, int status, string? detail)
    {
        var problem = new ProblemDetails { Status = status, Detail = detail };
        Customize(problem);
        EndIfTooLarge(context, status);
        return LocalAiErrors.WriteAsync(context, status, problem.Detail ?? "");
    }

    // what is left of a body that is too large is not read: the connection ends with the answer
    private static void EndIfTooLarge(HttpContext context, int status)
    {
        if (status == StatusCodes.Status413PayloadTooLarge && context.Features.Get<IHttpMaxRequestBodySizeFeature>() is not null)
            context.Response.Headers.Connection = "close";
    }

    private static ProblemDetails Make(int status, string code, string detail) =>
        new() { Status = status, Detail = detail, Extensions = { ["code"] = code } };

    private static HttpValidationProblemDetails Invalid(IDictionary<string, string[]> errors, string code) => new(errors)
    {
        Status = StatusCodes.Status400BadRequest,
        Detail = string.Join("; ", errors.SelectMany(error => error.Value.Select(message => error.Key.Length > 0 ? $"{error.Key}: {message}" : message))),
        Extensions = { ["code"] = code },
    };

    /// <summary>Gives the framework's own problems a detail and a code, and its validation errors the names that the JSON has.</summary>
    private static void Customize(ProblemDetails problem)
    {
        if (problem is HttpValidationProblemDetails validation && !problem.Extensions.ContainsKey("code"))
        {
            var errors = validation.Errors.ToDictionary(error => ToJsonPath(error.Key), error => error.Value.Select(Reword).ToArray());
            validation.Errors.Clear();
            foreach (var (key, messages) in errors)
                validation.Errors[key] = messages;
            problem.Detail = Invalid(errors, "validation").Detail;
            problem.Extensions["code"] = "validation";
        }
        problem.Detail ??= problem.Status switch
        {
            StatusCodes.Status404NotFound => "There is no such route.",
            StatusCodes.Status405MethodNotAllowed => "The route does not take this method.",
            StatusCodes.Status413PayloadTooLarge => "The body is too large.",
            StatusCodes.Status415UnsupportedMediaType => "The body must be JSON, with Content-Type: application/json.",
            StatusCodes.Status500InternalServerError => "Something went wrong inside ModelHost; its log says what.",
            _ => problem.Title,
        };
        problem.Extensions.TryAdd("code", problem.Status switch
        {
            StatusCodes.Status404NotFound => "route.not_found",
            StatusCodes.Status405MethodNotAllowed => "route.method_not_allowed",
            StatusCodes.Status413PayloadTooLarge => "body.too_large",
            StatusCodes.Status415UnsupportedMediaType => "body.not_json",
            StatusCodes.Status500InternalServerError => "internal",
            _ => "request.invalid",
        });
    }

    // "LoraModules[0].Name" -> "lora_modules[0].name"
    private static string ToJsonPath(string path) =>
        string.Join('.', path.Split('.').Select(segment =>
        {
            var bracket = segment.IndexOf('[', StringComparison.Ordinal);
            var name = bracket < 0 ? segment : segment[..bracket];
            return JsonNamingPolicy.SnakeCaseLower.ConvertName(name) + (bracket < 0 ? "" : segment[bracket..]);
        }));

    // "The field ModelName must be ...", "The ModelName field is required." -> "must be ...", "is required"
    private static string Reword(string message) => FieldName().Replace(message, "").Trim().TrimEnd('.');

    [GeneratedRegex(@"^The (field )?[A-Za-z]+ (field )?")]
    private static partial Regex FieldName();

    /// <summary>Bodies that cannot be read: 400, 413 or 415 with the field at fault, and never the name of a C# type.</summary>
    private sealed class BadRequests : IExceptionHandler
    {
        public async ValueTask<bool> TryHandleAsync(HttpContext context, Exception exception, CancellationToken cancellationToken)
        {
            if (context.IsOpenAiRoute())
            {
                await OpenAiErrors.WriteAsync(context, StatusCodes.Status500InternalServerError, OpenAiErrors.Internal());
                return true;
            }
            var bad = exception as BadHttpRequestException;
            var isLocalAi = context.IsLocalAiRoute();
            var isUnreadable = bad is not null || HasUnknownCharset(context.Request);
            if ((!isUnreadable && !isLocalAi) || context.Response.HasStarted || Database.IsFull(exception))
                return false;
            var status = bad?.StatusCode ?? (isUnreadable ? StatusCodes.Status415UnsupportedMediaType : StatusCodes.Status500InternalServerError);
            if (isLocalAi)
            {
                await WriteLocalAiAsync(context, status, status == StatusCodes.Status400BadRequest ? Invalid(Errors(bad!), "validation").Detail : null);
                return true;
            }
            context.Response.StatusCode = status;
            if (bad is not null && status == StatusCodes.Status400BadRequest)
                await TypedResults.Problem(Invalid(Errors(bad), "validation")).ExecuteAsync(context);
            else
            {
                EndIfTooLarge(context, status);
                var problem = new ProblemDetails { Status = status };
                Customize(problem);
                await TypedResults.Problem(problem).ExecuteAsync(context);
            }
            return true;
        }

        // JSON in it is not read at all
        private static bool HasUnknownCharset(HttpRequest request) =>
            MediaTypeHeaderValue.TryParse(request.ContentType, out var type) && type is { Charset.Length: > 0, Encoding: null };

        private static Dictionary<string, string[]> Errors(BadHttpRequestException bad)
        {
            if (bad.InnerException is not JsonException json)
            {
                // a parameter of the query or the path: "Failed to bind parameter "int tail" from "x"."
                var parameter = Parameter().Match(bad.Message);
                return new() { [parameter.Success ? ToJsonPath(parameter.Groups["name"].Value) : ""] = [parameter.Success ? "has the wrong form" : "the body is missing or is not JSON"] };
            }
            var path = json.Path is { Length: > 2 } at && at.StartsWith("$.", StringComparison.Ordinal) ? at[2..] : "";
            if (Duplicate().Match(json.Message) is { Success: true } twice)
                return new() { [path.Length > 0 ? path : twice.Groups["name"].Value] = ["comes more than once"] };
            // a path is also given for text that is no JSON at all, but then with a reader error inside
            return json.InnerException is not null && json.InnerException.GetType().Name.Contains("Reader", StringComparison.Ordinal)
                ? new() { [""] = [$"the body is not valid JSON (line {json.LineNumber + 1}, byte {json.BytePositionInLine + 1})"] }
                : new() { [path] = [path.Length > 0 ? "is null or has the wrong type" : "the body must be a JSON object"] };
        }
    }

    [GeneratedRegex("""^Duplicate propert(ies|y '(?<name>[^']{1,64}))""")]
    private static partial Regex Duplicate();

    [GeneratedRegex("""parameter "[^" ]+ (?<name>[A-Za-z_]+)" from""")]
    private static partial Regex Parameter();
}
