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

    /// <param name="context">The request.</param>
    /// <param name="error">What is wrong.</param>
    /// <param name="flat">In the shape of old releases.</param>
    public static Task ErrorAsync(HttpContext context, ApiException error, bool flat) =>
        ObjectAsync(context, json => ErrorMembers(json, error, flat), error.Status);

    /// <summary>The error of a path or method that is not there.</summary>
    public static Task StatusAsync(HttpContext context, int status, bool flat) =>
        ErrorAsync(context, new ApiException(status, Reasons.Of(status), Reasons.Of(status)), flat);

    /// <summary>What ends a stream of the chat family when the engine could not go on.</summary>
    /// <returns>True: the stream has an end.</returns>
    public static bool FailureEvent(ResponseBuffer buffer, ApiException error, bool flat)
    {
        buffer.BeginEvent();
        ErrorMembers(buffer.Json, error, flat);
        buffer.EndEvent();
        buffer.Done();
        return true;
    }

    public static void ErrorMembers(Utf8JsonWriter json, ApiException error, bool flat)
    {
        if (flat)
            json.WriteString("object"u8, "error"u8);
        else
            json.WriteStartObject("error"u8);
        json.WriteString("message"u8, error.Message);
        json.WriteString("type"u8, error.Type);
        json.WriteString("param"u8, error.Parameter);
        json.WriteNumber("code"u8, error.Status);
        if (!flat)
            json.WriteEndObject();
    }

    /// <summary>Sends the head of a stream: the status is known, whenever the first event comes.</summary>
    public static async Task BeginStreamAsync(HttpContext context)
    {
        context.Response.ContentType = "text/event-stream; charset=utf-8";
        await context.Response.BodyWriter.FlushAsync(context.RequestAborted);
    }

    public static Task TextAsync(HttpContext context, string text, string contentType) => BytesAsync(context, Encoding.UTF8.GetBytes(text), contentType);

    public static async Task BytesAsync(HttpContext context, byte[] bytes, string contentType)
    {
        context.Response.ContentType = contentType;
        context.Response.ContentLength = bytes.Length;
        await context.Response.BodyWriter.WriteAsync(bytes, context.RequestAborted);
    }
}
