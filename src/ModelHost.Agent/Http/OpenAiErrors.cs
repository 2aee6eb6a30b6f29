using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http;

namespace ModelHost.Agent.Http;

/// <summary>An error as OpenAI's SDKs read it.</summary>
/// <param name="Message">For a person.</param>
/// <param name="Type">Whose fault it is.</param>
/// <param name="Param">The field of the request that it is about; null: none.</param>
/// <param name="Code">For a program.</param>
public sealed record OpenAiError(string Message, string Type, string? Param, string Code);

/// <summary>The body of an answer that is an error.</summary>
/// <param name="Error">The error.</param>
public sealed record OpenAiErrorBody(OpenAiError Error);

/// <summary>The error answers of <c>/v1</c>, at the gateway and at the nodes.</summary>
public static class OpenAiErrors
{
    private const string InvalidRequest = "invalid_request_error";
    private const string Upstream = "upstream_error";

    /// <summary>400: the body is no JSON.</summary>
    public static OpenAiError InvalidJson(string why) => new($"The request body is not valid JSON: {why}.", InvalidRequest, null, "invalid_json");

    /// <summary>400: the body is no form.</summary>
    public static OpenAiError InvalidForm(string why) => new($"The request body is not a valid form: {why}.", InvalidRequest, null, "invalid_form");

    /// <summary>400: the body names no model.</summary>
    public static OpenAiError MissingModel() => new("The request body has no field 'model' with a model's name.", InvalidRequest, "model", "missing_model");

    /// <summary>400: the body names a model twice.</summary>
    public static OpenAiError TwoModels() => new("The request body has the field 'model' more than once.", InvalidRequest, "model", "invalid_json");

    /// <summary>400: whether a stream is wanted is not clear.</summary>
    public static OpenAiError UnclearStream() => new("The field 'stream' must be true or false.", InvalidRequest, "stream", "invalid_type");

    /// <summary>400: what a stream is to tell is not clear.</summary>
    public static OpenAiError UnclearStreamOptions() => new(
        "The field 'stream_options' must be one object, in which 'include_usage' is true or false.", InvalidRequest, "stream_options", "invalid_type");

    /// <summary>400: a value of a field is not one of those that can be.</summary>
    public static OpenAiError InvalidValue(string field, string why) => new($"The field '{Shown(field)}' {Shown(why)}.", InvalidRequest, Shown(field), "invalid_value");

    /// <summary>400: the backend would not take the request.</summary>
    public static OpenAiError BackendRefused(string why) => new(
        $"The model's backend refused the request{(why.Length > 0 ? ": " + Shown(why) : "")}.", InvalidRequest, null, "backend_refused");

    /// <summary>404: nothing serves the model.</summary>
    public static OpenAiError NotFound(string model, IReadOnlyList<string> available) => new(
        $"The model '{Shown(model)}' is not served here. Available: {(available.Count == 0 ? "none" : string.Join(", ", available.Take(50)))}.",
        InvalidRequest, "model", "model_not_found");

    /// <summary>400: several deployments serve the model.</summary>
    public static OpenAiError Ambiguous(string model, IReadOnlyList<string> names) => new(
        $"Several deployments serve '{Shown(model)}'. Ask for one of: {string.Join(", ", names)}.", InvalidRequest, "model", "model_ambiguous");

    /// <summary>503: what serves the model is not up yet.</summary>
    public static OpenAiError Loading(string model) => new($"The model '{Shown(model)}' is starting; try again shortly.", Upstream, "model", "model_loading");

    /// <summary>503: what is to serve the model could not be started.</summary>
    /// <param name="model">The model.</param>
    /// <param name="why">The name of the cause; more might tell of other models and machines.</param>
    public static OpenAiError StartFailed(string model, string why) => new(
        $"The model '{Shown(model)}' could not be started ({Shown(why)}); it is tried again on a later request.", Upstream, "model", "model_start_failed");

    /// <summary>502: the engine does not answer.</summary>
    public static OpenAiError Unreachable(string model) => new(
        $"The engine that serves '{Shown(model)}' does not answer.", Upstream, null, "deployment_unreachable");

    /// <summary>504: the engine did not answer in time.</summary>
    public static OpenAiError Timeout(string model) => new(
        $"The engine that serves '{Shown(model)}' did not answer in time.", Upstream, null, "deployment_timeout");

    /// <summary>502: the backend began and failed.</summary>
    public static OpenAiError BackendFailed(string model) => new(
        $"The backend that serves '{Shown(model)}' failed the request.", Upstream, null, "backend_failed");

    /// <summary>501: the backend has no such method.</summary>
    public static OpenAiError NotSupported(string model) => new(
        $"The backend that serves '{Shown(model)}' cannot do this.", Upstream, null, "not_supported");

    /// <summary>401: no key, or a wrong one.</summary>
    public static OpenAiError InvalidApiKey(bool hasKey, bool keysExist) => new(
        hasKey ? "The API key is not valid." : "An API key is needed: 'Authorization: Bearer KEY'." + (keysExist ? "" : " Without one only programs on the same machine are served."),
        InvalidRequest, null, "invalid_api_key");

    /// <summary>403: the key is for something else.</summary>
    public static OpenAiError RoleForbidden() => new("This API key is not for inference.", InvalidRequest, null, "role_forbidden");

    /// <summary>403: the key is for other models.</summary>
    public static OpenAiError ModelForbidden(string model) => new($"This API key is not for the model '{Shown(model)}'.", InvalidRequest, "model", "model_forbidden");

    /// <summary>413: the body is too large.</summary>
    public static OpenAiError TooLarge() => new("The request body is too large.", InvalidRequest, null, "request_too_large");

    /// <summary>404: there is no such route.</summary>
    public static OpenAiError NoRoute(string method, string path) => new($"There is no route {method} {Shown(path)}.", InvalidRequest, null, "not_found");

    /// <summary>415: the body has to be JSON.</summary>
    public static OpenAiError NotJson() => new("The body must be JSON, with Content-Type: application/json.", InvalidRequest, null, "unsupported_media_type");

    /// <summary>415: the body has to be a form.</summary>
    public static OpenAiError NotForm() => new("The body must be a form, with Content-Type: multipart/form-data and its boundary.", InvalidRequest, null, "unsupported_media_type");

    /// <summary>503: the process ends.</summary>
    public static OpenAiError ShuttingDown() => new("ModelHost is being shut down; try again shortly.", Upstream, null, "shutting_down");

    /// <summary>503: the deployment ends, and answers what is under way.</summary>
    public static OpenAiError Draining(string model) => new(
        $"The deployment that serves '{Shown(model)}' here is being ended and takes no new requests.", Upstream, null, "shutting_down");

    /// <summary>503: the gateway is off.</summary>
    public static OpenAiError Disabled() => new("The gateway is switched off (setting gateway_enabled).", Upstream, null, "gateway_disabled");

    /// <summary>500: a bug of ours.</summary>
    public static OpenAiError Internal() => new("Something went wrong inside ModelHost.", "server_error", null, "internal_error");

    /// <summary>400 or 413: the body could not be read.</summary>
    public static OpenAiError BadBody(int status) =>
        status == StatusCodes.Status413PayloadTooLarge ? TooLarge() : InvalidJson("it ended early or could not be read");

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

/// <summary>How errors are written.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(OpenAiErrorBody))]
public sealed partial class OpenAiErrorJson : JsonSerializerContext
{
    /// <summary>Leaves quotes and letters of all languages as they are: the answers are JSON and never part of a page.</summary>
    public static OpenAiErrorJson Readable => field ??= new(new JsonSerializerOptions
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    });
}
