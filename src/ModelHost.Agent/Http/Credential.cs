using Microsoft.AspNetCore.Http;

namespace ModelHost.Agent.Http;

/// <summary>Reads the one credential of a request.</summary>
public static class Credential
{
    /// <summary>The header in which Anthropic's SDKs send their key.</summary>
    public const string AnthropicKey = "X-Api-Key";

    private const string Bearer = "Bearer ";

    /// <summary>The credential; empty: none, or none that can be read.</summary>
    /// <param name="headers">The headers of the request.</param>
    /// <param name="takesAnthropicKey">Whether <see cref="AnthropicKey"/> counts: on routes for inference.</param>
    /// <param name="isGiven">Whether there is any, readable or not.</param>
    /// <param name="whole">The header that it is all of; null: none.</param>
    public static ReadOnlySpan<char> Read(IHeaderDictionary headers, bool takesAnthropicKey, out bool isGiven, out string? whole)
    {
        ArgumentNullException.ThrowIfNull(headers);
        whole = null;
        var bearer = headers.Authorization;
        var anthropic = takesAnthropicKey ? headers[AnthropicKey] : default;
        isGiven = bearer.Count + anthropic.Count > 0;
        var second = anthropic is [{ } text] ? text.AsSpan().Trim() : default;
        if (bearer.Count == 0)
            return second;
        if (bearer is not [{ } header] || !header.StartsWith(Bearer, StringComparison.OrdinalIgnoreCase))
            return default;
        var first = header.AsSpan(Bearer.Length).Trim();
        whole = anthropic.Count == 0 ? header : null;
        // with two different ones it would be in doubt whose request it is
        return anthropic.Count == 0 || first.SequenceEqual(second) ? first : default;
    }
}
