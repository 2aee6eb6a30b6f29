using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Reads a JSON body.</summary>
internal static class RequestBody
{
    /// <summary>Reads the whole body and hands it to <paramref name="use"/>, which must not keep it.</summary>
    /// <exception cref="ApiException">The content type or the JSON is wrong, or the callback refuses.</exception>
    public static ValueTask<T> ReadAsync<T>(HttpContext context, Func<JsonElement, T> use) => ReadAsync(context, use, keep: false);

    /// <summary>Reads the whole body and leaves it for somebody else to read.</summary>
    /// <inheritdoc cref="ReadAsync{T}(HttpContext, Func{JsonElement, T})"/>
    public static ValueTask<T> PeekAsync<T>(HttpContext context, Func<JsonElement, T> use) => ReadAsync(context, use, keep: true);

    private static async ValueTask<T> ReadAsync<T>(HttpContext context, Func<JsonElement, T> use, bool keep)
    {
        var type = context.Request.ContentType.AsSpan();
        if (type.IndexOf(';') is >= 0 and var end)
            type = type[..end];
        if (!type.Trim().Equals("application/json", StringComparison.OrdinalIgnoreCase))
            throw new ApiException(400, Reasons.Of(400), "Unsupported Media Type: Only 'application/json' is allowed");

        var reader = context.Request.BodyReader;
        var result = await reader.ReadAsync(context.RequestAborted);
        while (!result.IsCompleted)
        {
            reader.AdvanceTo(result.Buffer.Start, result.Buffer.End);
            result = await reader.ReadAsync(context.RequestAborted);
        }
        try
        {
            if (result.Buffer.IsEmpty)
                throw ApiException.Shape("body", "missing", "Field required");
            using var document = JsonDocument.Parse(result.Buffer);
            if (document.RootElement.ValueKind != JsonValueKind.Object)
                throw ApiException.Shape("body", "model_attributes_type", "Input should be a valid dictionary or object to extract fields from");
            return use(document.RootElement);
        }
        catch (JsonException e)
        {
            throw ApiException.Shape($"body.{e.BytePositionInLine ?? 0}", "json_invalid", "JSON decode error");
        }
        catch (InvalidOperationException)
        {
            // a string that is no text: broken UTF-8, or an escape that is half of a surrogate pair
            throw ApiException.Shape("body", "json_invalid", "JSON decode error");
        }
        finally
        {
            reader.AdvanceTo(keep ? result.Buffer.Start : result.Buffer.End, result.Buffer.End);
        }
    }
}
