using Microsoft.Extensions.Options;
using ModelHost.Agent.Http;
using ModelHost.Common;
using ModelHost.Features.ApiKeys;

namespace ModelHost.Access;

/// <summary>
/// Lets a request pass that its route's rule allows, and answers the others in the shape of their area. Every request comes by here,
/// those of the gateway thousands of times a second: it makes nothing and waits for nothing.
/// </summary>
internal sealed class AccessGate(
    RequestDelegate next, IOptions<AccessOptions> access, AdminKey adminKey, ApiKeyRing keys, LoopbackGuard guard, TimeProvider time)
{
    private readonly bool _isOpen = access.Value.TrustedLan;

    private enum Verdict
    {
        Allowed,
        NoKey,
        NoRole,
    }

    public Task InvokeAsync(HttpContext context)
    {
        var rule = context.GetEndpoint()?.Metadata.GetMetadata<AccessRule>() ?? AccessRule.Admin;
        if (rule == AccessRule.AdminSocket && LocalRequest.IsFromForeignPage(context.Request))
        {
            return Problems.WriteAsync(context, StatusCodes.Status403Forbidden, "access.foreign_origin",
                "Pages of another origin are not served here. Behind a proxy, --trusted-proxies lets ModelHost know its own origin.");
        }
        return Judge(context, rule) switch
        {
            Verdict.Allowed => next(context),
            Verdict.NoKey => RefuseAsync(context),
            Verdict.NoRole => RefuseRoleAsync(context, rule),
        };
    }

    private Verdict Judge(HttpContext context, AccessRule rule)
    {
        if (rule == AccessRule.Public)
            return Verdict.Allowed;
        var given = Credential.Read(context.Request.Headers, takesAnthropicKey: rule == AccessRule.Inference, out var isGiven, out var header);
        var now = time.GetUtcNow();
        var key = rule.IsAdmin && rule != AccessRule.KeyMaking ? null : keys.Find(given, now, header);
        if (key is not null && (rule == AccessRule.KeyMaking ? !key.Row.IsTemporary : key.Grant.Roles.HasFlag(rule.Role)))
        {
            key.LastUse.Note(now);
            context.Features.Set(key.Feature);
            return Verdict.Allowed;
        }
        if (rule == AccessRule.Inference && (key is not null || keys.IsClosed))
            return key is null ? Verdict.NoKey : Verdict.NoRole;
        // OpenAI SDKs always send some key; who sends a wrong one to an admin route has made a mistake and should hear of it
        if ((!isGiven || !rule.IsAdmin) && (_isOpen || guard.IsLocal(context)))
            return Verdict.Allowed;
        return adminKey.Matches(given.ToString()) ? Verdict.Allowed : key is null ? Verdict.NoKey : Verdict.NoRole;
    }

    private Task RefuseAsync(HttpContext context)
    {
        context.Response.Headers.WWWAuthenticate = "Bearer";
        var headers = context.Request.Headers;
        return context.IsOpenAiRoute()
            ? OpenAiErrors.WriteAsync(context, StatusCodes.Status401Unauthorized,
                OpenAiErrors.InvalidApiKey(hasKey: headers.Authorization.Count + headers[Credential.AnthropicKey].Count > 0, keys.IsClosed))
            : Problems.WriteAsync(context, StatusCodes.Status401Unauthorized, "access.key_needed",
                "This needs the admin key as 'Authorization: Bearer KEY'; it stands in the file admin-key of the data folder. Without a key only "
                + "programs on the same machine are served, and no proxy, foreign web page or other host name in between.");
    }

    private static Task RefuseRoleAsync(HttpContext context, AccessRule rule) => context.IsOpenAiRoute()
        ? OpenAiErrors.WriteAsync(context, StatusCodes.Status403Forbidden, OpenAiErrors.RoleForbidden())
        : Problems.WriteAsync(context, StatusCodes.Status403Forbidden, "access.role_needed", rule == AccessRule.KeyMaking
            ? "A temporary API key makes no keys." : $"This API key has not the role {rule.Role.ToWords()[0]}.");
}
