using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Diagnostics;

namespace ModelHost.Common;

/// <summary>An error as OpenAI's SDKs read it.</summary>
internal sealed record OpenAiError(string Message, string Type, string? Param, string Code);

internal sealed record OpenAiErrorBody(OpenAiError Error);

/// <summary>Marks routes whose errors have OpenAI's shape.</summary>
internal sealed class OpenAiRoute
{
    public static OpenAiRoute Instance { get; } = new();
}

/// <summary>The error answers of <c>/v1</c>.</summary>
internal static class OpenAiErrors
{
    private const string InvalidRequest = "invalid_request_error";
    private const string Upstream = "upstream_error";

    public static OpenAiError InvalidJson(string why) => new($"The request body is not valid JSON: {why}.", InvalidRequest, null, "invalid_json");

    public static OpenAiError InvalidForm(string why) => new($"The request body is not a valid form: {why}.", InvalidRequest, null, "invalid_form");

    public static OpenAiError MissingModel() => new("The request body has no field 'model' with a model's name.", InvalidRequest, "model", "missing_model");

    public static OpenAiError TwoModels() => new("The request body has the field 'model' more than once.", InvalidRequest, "model", "invalid_json");

    public static OpenAiError UnclearStream() => new("The field 'stream' must be true or false.", InvalidRequest, "stream", "invalid_type");

    public static OpenAiError UnclearStreamOptions() => new(
        "The field 'stream_options' must be one object, in which 'include_usage' is true or false.", InvalidRequest, "stream_options", "invalid_type");

    public static OpenAiError InvalidValue(string field, string why) => new($"The field '{Shown(field)}' {Shown(why)}.", InvalidRequest, Shown(field), "invalid_value");

    public static OpenAiError BackendRefused(string why) => new(
        $"The model's backend refused the request{(why.Length > 0 ? ": " + Shown(why) : "")}.", InvalidRequest, null, "backend_refused");

    public static OpenAiError NotFound(string model, IReadOnlyList<string> available) => new(
        $"The model '{Shown(model)}' is not served here. Available: {(available.Count == 0 ? "none" : string.Join(", ", available.Take(50)))}.",
        InvalidRequest, "model", "model_not_found");

    public static OpenAiError Ambiguous(string model, IReadOnlyList<string> names) => new(
        $"Several deployments serve '{Shown(model)}'. Ask for one of: {string.Join(", ", names)}.", InvalidRequest, "model", "model_ambiguous");

    public static OpenAiError Loading(string model) => new($"The model '{Shown(model)}' is starting; try again shortly.", Upstream, "model", "model_loading");

    public static OpenAiError Unreachable(string model) => new(
        $"The engine that serves '{Shown(model)}' does not answer.", Upstream, null, "deployment_unreachable");

    public static OpenAiError Timeout(string model) => new(
        $"The engine that serves '{Shown(model)}' did not answer in time.", Upstream, null, "deployment_timeout");

    public static OpenAiError BackendFailed(string model) => new(
        $"The backend that serves '{Shown(model)}' failed the request.", Upstream, null, "backend_failed");

    public static OpenAiError NotSupported(string model) => new(
        $"The backend that serves '{Shown(model)}' cannot do this.", Upstream, null, "not_supported");

    public static OpenAiError InvalidApiKey(bool hasKey, bool keysExist) => new(
        hasKey ? "The API key is not valid." : "An API key is needed: 'Authorization: Bearer KEY'." + (keysExist ? "" : " Without one only programs on the same machine are served."),
        InvalidRequest, null, "invalid_api_key");

    public static OpenAiError RoleForbidden() => new("This API key is not for inference.", InvalidRequest, null, "role_forbidden");

    public static OpenAiError ModelForbidden(string model) => new($"This API key is not for the model '{Shown(model)}'.", InvalidRequest, "model", "model_forbidden");

    public static OpenAiError TooLarge() => new("The request body is too large.", InvalidRequest, null, "request_too_large");

    public static OpenAiError NoRoute(string method, string path) => new($"There is no route {method} {Shown(path)}.", InvalidRequest, null, "not_found");

    public static OpenAiError NotJson() => new("The body must be JSON, with Content-Type: application/json.", InvalidRequest, null, "unsupported_media_type");

    public static OpenAiError NotForm() => new("The body must be a form, with Content-Type: multipart/form-data and its boundary.", InvalidRequest, null, "unsupported_media_type");

    public static OpenAiError ShuttingDown() => new("ModelHost is being shut down; try again shortly.", Upstream, null, "shutting_down");

    public static OpenAiError Disabled() => new("The gateway is switched off (setting gateway_enabled).", Upstream, null, "gateway_disabled");

    public static OpenAiError Internal() => new("Something went wrong inside ModelHost.", "server_error", null, "internal_error");

    public static OpenAiError BadBody(int status) =>
        status == StatusCodes.Status413PayloadTooLarge ? TooLarge() : InvalidJson("it ended early or could not be read");

    /// <summary>Whether the errors of this request's route have OpenAI's shape.</summary>
    public static bool IsOpenAiRoute(this HttpContext context) =>
        // the endpoint is taken off the request before exceptions are handled
        (context.GetEndpoint() ?? context.Features.Get<IExceptionHandlerFeature>()?.Endpoint)?.Metadata.GetMetadata<OpenAiRoute>() is not null;

    /// <summary>Writes the error, unless an answer is already under way.</summary>
    public static async Task WriteAsync(HttpContext context, int status, OpenAiError error)
    {
        if (context.Response.HasStarted)
            return;
        context.Response.StatusCode = status;
        context.Response.ContentLength = null;
        context.Response.Headers[RequestId.Header] = RequestId.Of(context);
        await context.Response.WriteAsJsonAsync(new OpenAiErrorBody(error), OpenAiErrorJson.Readable.OpenAiErrorBody, cancellationToken: context.RequestAborted);
    }

    // what comes from the request goes back bounded
    private static string Shown(string text) => text.Length <= 128 ? text : text[..128] + "…";
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(OpenAiErrorBody))]
internal sealed partial class OpenAiErrorJson : JsonSerializerContext
{
    /// <summary>Leaves quotes and letters of all languages as they are: the answers are JSON and never part of a page.</summary>
    public static OpenAiErrorJson Readable => field ??= new(new JsonSerializerOptions
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    });
}
