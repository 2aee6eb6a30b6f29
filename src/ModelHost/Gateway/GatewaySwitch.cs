using ModelHost.Agent.Http;
using ModelHost.Common;
using ModelHost.Features.Settings;

namespace ModelHost.Gateway;

/// <summary>
/// Answers everything on <c>/v1</c> with 503 while the gateway is switched off or the process ends, before keys and bodies are looked at.
/// </summary>
internal sealed class GatewaySwitch(RequestDelegate next, LiveSettings settings, GatewayDrain drain, GatewayMeters meters, TimeProvider time)
{
    public Task InvokeAsync(HttpContext context) =>
        (settings.Current.GatewayEnabled && !drain.IsDraining) || !context.IsOpenAiRoute() ? next(context) : RefuseAsync(context);

    private async Task RefuseAsync(HttpContext context)
    {
        var began = time.GetTimestamp();
        if (drain.IsDraining)
            context.Response.Headers.Connection = "close"; // the next request finds another listener, or the one that comes after this
        await OpenAiErrors.WriteAsync(context, StatusCodes.Status503ServiceUnavailable, drain.IsDraining ? OpenAiErrors.ShuttingDown() : OpenAiErrors.Disabled());
        meters.Count(context, GatewayMeters.NoModel, time.GetElapsedTime(began));
    }
}
