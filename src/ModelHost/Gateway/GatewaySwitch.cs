using ModelHost.Common;
using ModelHost.Features.Settings;

namespace ModelHost.Gateway;

/// <summary>Answers everything on <c>/v1</c> with 503 while the gateway is switched off, before keys and bodies are looked at.</summary>
internal sealed class GatewaySwitch(RequestDelegate next, LiveSettings settings, GatewayMeters meters, TimeProvider time)
{
    public Task InvokeAsync(HttpContext context) =>
        settings.Current.GatewayEnabled || !context.IsOpenAiRoute() ? next(context) : RefuseAsync(context);

    private async Task RefuseAsync(HttpContext context)
    {
        var began = time.GetTimestamp();
        await OpenAiErrors.WriteAsync(context, StatusCodes.Status503ServiceUnavailable, OpenAiErrors.Disabled());
        meters.Count(context, GatewayMeters.NoModel, time.GetElapsedTime(began));
    }
}
