using ModelHost.Core.Routing;

namespace ModelHost.Access;

/// <summary>The API key that a request was let in with, as a feature of its context. One object per key, shared by all its requests.</summary>
/// <param name="KeyId">Id of the key.</param>
/// <param name="Label">Its label.</param>
/// <param name="Scope">What it may ask for.</param>
internal sealed record ApiKeyFeature(int KeyId, string Label, RouteScope Scope);

/// <summary>Reads the feature.</summary>
internal static class ApiKeyFeatures
{
    /// <summary>What the request may ask for; null: everything, since it was let in without an API key.</summary>
    public static RouteScope? RouteScope(this HttpContext context) => context.Features.Get<ApiKeyFeature>()?.Scope;
}
