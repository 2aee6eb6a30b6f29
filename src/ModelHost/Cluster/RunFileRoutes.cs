using Microsoft.AspNetCore.Http.Features;
using ModelHost.Agent.Backends;

namespace ModelHost.Cluster;

/// <summary>The files of gRPC backends on an agent's machine, for its control plane: <c>PUT</c>, <c>GET</c> and <c>DELETE /files/RUN/NAME</c>.</summary>
internal static class RunFileRoutes
{
    /// <summary>Says the path of a file on the agent's machine.</summary>
    public const string PathHeader = "X-ModelHost-Path";

    /// <summary>Serves them.</summary>
    public static void MapRunFiles(this IEndpointRouteBuilder routes, RunFiles files)
    {
        routes.MapPut("/files/{run}/{name}", (HttpContext context, string run, string name) => AnswerAsync(context, async () =>
        {
            // of a file that the backend is to write, only the path is wanted
            var isContent = context.Features.Get<IHttpRequestBodyDetectionFeature>()?.CanHaveBody == true && context.Request.ContentLength != 0;
            files.Open(run);
            context.Response.Headers[PathHeader] = isContent
                ? await files.WriteAsync(run, name, context.Request.Body, context.RequestAborted) : files.PathOf(run, name);
        }));
        routes.MapGet("/files/{run}/{name}", (HttpContext context, string run, string name) => AnswerAsync(context, async () =>
        {
            await using var file = files.OpenRead(run, name);
            if (file is null)
            {
                context.Response.StatusCode = StatusCodes.Status404NotFound;
                return;
            }
            context.Response.ContentLength = file.Length;
            await file.CopyToAsync(context.Response.Body, context.RequestAborted);
        }));
        routes.MapDelete("/files/{run}/{name}", (HttpContext context, string run, string name) => AnswerAsync(context, () =>
        {
            files.Delete(run, name);
            return Task.CompletedTask;
        }));
    }

    private static async Task AnswerAsync(HttpContext context, Func<Task> answerAsync)
    {
        try
        {
            await answerAsync();
        }
        catch (ArgumentException)
        {
            context.Response.StatusCode = StatusCodes.Status400BadRequest;
        }
        catch (InvalidDataException)
        {
            context.Response.StatusCode = StatusCodes.Status413PayloadTooLarge;
        }
        catch (IOException) when (!context.Response.HasStarted && !context.RequestAborted.IsCancellationRequested)
        {
            context.Response.StatusCode = StatusCodes.Status507InsufficientStorage;
        }
    }
}
