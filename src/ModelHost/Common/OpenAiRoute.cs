using Microsoft.AspNetCore.Diagnostics;

namespace ModelHost.Common;

/// <summary>Marks routes whose errors have OpenAI's shape.</summary>
internal sealed class OpenAiRoute
{
    public static OpenAiRoute Instance { get; } = new();
}

/// <summary>Finds the mark.</summary>
internal static class OpenAiRoutes
{
    /// <summary>Whether the errors of this request's route have OpenAI's shape.</summary>
    public static bool IsOpenAiRoute(this HttpContext context) =>
        // the endpoint is taken off the request before exceptions are handled
        (context.GetEndpoint() ?? context.Features.Get<IExceptionHandlerFeature>()?.Endpoint)?.Metadata.GetMetadata<OpenAiRoute>() is not null;
}
