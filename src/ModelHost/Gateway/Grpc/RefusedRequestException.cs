using ModelHost.Agent.Http;

namespace ModelHost.Gateway.Grpc;

/// <summary>A request that a backend is not asked, or that it did not answer: what the client is told instead.</summary>
/// <param name="status">The HTTP status.</param>
/// <param name="error">The error.</param>
internal sealed class RefusedRequestException(int status, OpenAiError error) : Exception(error.Message)
{
    /// <summary>The HTTP status.</summary>
    public int Status => status;

    /// <summary>The error.</summary>
    public OpenAiError Error => error;

    /// <summary>A field has a value that cannot be taken.</summary>
    /// <param name="field">The field.</param>
    /// <param name="why">What is wrong with it: continues "The field … ".</param>
    public static RefusedRequestException Field(string field, string why) => new(StatusCodes.Status400BadRequest, OpenAiErrors.InvalidValue(field, why));
}
