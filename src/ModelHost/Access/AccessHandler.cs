using System.Security.Claims;
using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.Extensions.Options;
using ModelHost.Common;

namespace ModelHost.Access;

/// <summary>Finds out what a request may do, and answers the ones that may not in the shape of their area.</summary>
internal sealed class AccessHandler(
    IOptionsMonitor<AuthenticationSchemeOptions> options, ILoggerFactory loggers, UrlEncoder encoder,
    IOptions<AccessOptions> access, AdminKey adminKey, LoopbackGuard guard)
    : AuthenticationHandler<AuthenticationSchemeOptions>(options, loggers, encoder)
{
    /// <summary>Name of the scheme.</summary>
    public new const string Scheme = "ModelHost";

    private const string Bearer = "Bearer ";

    // made once: every request of the gateway comes by here
    private static readonly Task<AuthenticateResult> s_everything = Task.FromResult(Allow(AccessRules.Admin, AccessRules.Inference, AccessRules.Metrics));
    private static readonly Task<AuthenticateResult> s_requests = Task.FromResult(Allow(AccessRules.Inference, AccessRules.Metrics));
    private static readonly Task<AuthenticateResult> s_nothing = Task.FromResult(AuthenticateResult.NoResult());

    protected override Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        var given = Request.Headers.Authorization is [{ } header] && header.StartsWith(Bearer, StringComparison.OrdinalIgnoreCase)
            ? header[Bearer.Length..].Trim() : null;
        if (given is not null && adminKey.Matches(given))
            return s_everything;
        if (!access.Value.TrustedLan && !guard.IsLocal(Context))
            return s_nothing;
        // OpenAI SDKs always send some key; who sends a wrong one to an admin route has made a mistake and should hear of it
        return Request.Headers.Authorization.Count == 0 ? s_everything : s_requests;
    }

    protected override Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        Response.Headers.WWWAuthenticate = "Bearer";
        return Refuse(StatusCodes.Status401Unauthorized);
    }

    protected override Task HandleForbiddenAsync(AuthenticationProperties properties) =>
        // the only ones known but not allowed are those with a wrong key
        HandleChallengeAsync(properties);

    private Task Refuse(int status) =>
        Context.IsOpenAiRoute()
            ? OpenAiErrors.WriteAsync(Context, status, OpenAiErrors.InvalidApiKey(hasKey: Request.Headers.Authorization.Count > 0))
            : Problems.WriteAsync(Context, status, "access.key_needed",
                "This needs the admin key as 'Authorization: Bearer KEY'; it stands in the file admin-key of the data folder. Without a key only "
                + "programs on the same machine are served, and no proxy, foreign web page or other host name in between.");

    private static AuthenticateResult Allow(params string[] roles)
    {
        var identity = new ClaimsIdentity(roles.Select(role => new Claim(ClaimTypes.Role, role)), Scheme);
        return AuthenticateResult.Success(new AuthenticationTicket(new ClaimsPrincipal(identity), Scheme));
    }
}
