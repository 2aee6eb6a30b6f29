using Microsoft.Extensions.Options;
using ModelHost.Common;

namespace ModelHost.Access;

/// <summary>
/// Lets a request pass that its route's rule allows, and answers the others in the shape of their area. Every request comes by here,
/// those of the gateway thousands of times a second: it makes nothing and waits for nothing.
/// </summary>
internal sealed class AccessGate(RequestDelegate next, IOptions<AccessOptions> access, AdminKey adminKey, LoopbackGuard guard)
{
    private const string Bearer = "Bearer ";
    private readonly bool _isOpen = access.Value.TrustedLan;

    public Task InvokeAsync(HttpContext context)
    {
        var rule = context.GetEndpoint()?.Metadata.GetMetadata<AccessRule>() ?? AccessRule.Admin;
        if (rule == AccessRule.AdminSocket && LoopbackGuard.IsFromForeignPage(context.Request))
        {
            return Problems.WriteAsync(context, StatusCodes.Status403Forbidden, "access.foreign_origin",
                "Pages of another origin are not served here. Behind a proxy, --trusted-proxies lets ModelHost know its own origin.");
        }
        return IsAllowed(context, rule) ? next(context) : RefuseAsync(context);
    }

    private bool IsAllowed(HttpContext context, AccessRule rule)
    {
        if (rule == AccessRule.Public)
            return true;
        var given = context.Request.Headers.Authorization;
        // OpenAI SDKs always send some key; who sends a wrong one to an admin route has made a mistake and should hear of it
        if ((given.Count == 0 || !rule.IsAdmin) && (_isOpen || guard.IsLocal(context)))
            return true;
        return given is [{ } header] && header.StartsWith(Bearer, StringComparison.OrdinalIgnoreCase) && adminKey.Matches(header[Bearer.Length..].Trim());
    }

    private static Task RefuseAsync(HttpContext context)
    {
        context.Response.Headers.WWWAuthenticate = "Bearer";
        return context.IsOpenAiRoute()
            ? OpenAiErrors.WriteAsync(context, StatusCodes.Status401Unauthorized, OpenAiErrors.InvalidApiKey(hasKey: context.Request.Headers.Authorization.Count > 0))
            : Problems.WriteAsync(context, StatusCodes.Status401Unauthorized, "access.key_needed",
                "This needs the admin key as 'Authorization: Bearer KEY'; it stands in the file admin-key of the data folder. Without a key only "
                + "programs on the same machine are served, and no proxy, foreign web page or other host name in between.");
    }
}
