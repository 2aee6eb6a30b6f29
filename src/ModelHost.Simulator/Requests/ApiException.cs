using ModelHost.Simulator.Server;

namespace ModelHost.Simulator.Requests;

/// <summary>A request that is answered with vLLM's error object.</summary>
internal sealed class ApiException(int status, string type, string message, string? parameter = null) : Exception(message)
{
    public int Status { get; } = status;

    public string Type { get; } = type;

    public string? Parameter { get; } = parameter;

    /// <summary>A body of the wrong shape: FastAPI's validation, answered with 400 and the reason phrase as its type.</summary>
    public static ApiException Shape(string location, string type, string message) => new(400, Reasons.Of(400),
        $"1 validation error:\n  {{'type': '{type}', 'loc': ('{location.Replace(".", "', '", StringComparison.Ordinal)}'), 'msg': '{message}'}}", location);

    /// <summary>A parameter that is well-formed but cannot be used.</summary>
    public static ApiException Bad(string message, string? parameter = null) => new(400, "BadRequestError", message, parameter);

    public static ApiException UnknownModel(string model) => new(404, "NotFoundError", $"The model `{model}` does not exist.", "model");

    /// <summary>The route is there, but this model cannot do it.</summary>
    public static ApiException Unable(string api) => new(501, "NotImplementedError", $"The model does not support {api} API");

    public static ApiException Busy() => new(503, "ServiceUnavailableError", "The server is overloaded. Please retry later.");

    /// <summary>Something went wrong inside; the log says what.</summary>
    public static ApiException Internal() => new(500, "InternalServerError", "Internal server error");

    public static ApiException EngineDead() =>
        new(500, "InternalServerError", "EngineCore encountered an issue. See stack trace (above) for the root cause.");
}
