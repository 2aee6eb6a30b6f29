using System.IO.Pipelines;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Writes whole responses and whole error bodies.</summary>
internal static class Answers
{
    public static ValueTask<FlushResult> JsonAsync(HttpContext context, ResponseBuffer buffer, int status = 200)
    {
        buffer.Json.Flush();
        var response = context.Response;
        response.StatusCode = status;
        response.ContentType = "application/json";
        response.ContentLength = buffer.Written.Length;
        return response.BodyWriter.WriteAsync(buffer.Written, context.RequestAborted);
    }

    /// <summary>Writes an object that the callback fills.</summary>
    public static async Task ObjectAsync(HttpContext context, Action<Utf8JsonWriter> members, int status = 200)
    {
        var buffer = ResponseBuffer.Rent();
        buffer.Json.WriteStartObject();
        members(buffer.Json);
        buffer.Json.WriteEndObject();
        await JsonAsync(context, buffer, status);
        ResponseBuffer.Return(buffer);
    }

    public static Task ErrorAsync(HttpContext context, ApiException error) =>
        ObjectAsync(context, json => ErrorMembers(json, error), error.Status);

    /// <summary>The error of a path or method that is not there.</summary>
    public static Task StatusAsync(HttpContext context, int status) =>
        ErrorAsync(context, new ApiException(status, Reasons.Of(status), Reasons.Of(status)));

    public static void ErrorMembers(Utf8JsonWriter json, ApiException error)
    {
        json.WriteStartObject("error"u8);
        json.WriteString("message"u8, error.Message);
        json.WriteString("type"u8, error.Type);
        json.WriteString("param"u8, error.Parameter);
        json.WriteNumber("code"u8, error.Status);
        json.WriteEndObject();
    }

    public static async Task TextAsync(HttpContext context, string text, string contentType)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        context.Response.ContentType = contentType;
        context.Response.ContentLength = bytes.Length;
        await context.Response.BodyWriter.WriteAsync(bytes, context.RequestAborted);
    }
}
