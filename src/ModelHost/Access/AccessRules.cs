using Microsoft.AspNetCore.Authorization;
using ModelHost.Common;

namespace ModelHost.Access;

/// <summary>The rules that a route can have; every route has exactly one.</summary>
internal static class AccessRules
{
    /// <summary>Needs the admin key, or a request from this machine to a listener bound to loopback only.</summary>
    public const string Admin = "admin";

    /// <summary>Inference: until API keys exist as <see cref="Admin"/>, but any key is taken from this machine.</summary>
    public const string Inference = "inference";

    /// <summary>Scraping: as <see cref="Inference"/>.</summary>
    public const string Metrics = "metrics";

    /// <summary>Adds authentication and the rules; a route without one is the administrator's alone.</summary>
    public static IServiceCollection AddAccess(this IServiceCollection services)
    {
        services.AddCheckedOptions<AccessOptions>(AccessOptions.Section).Validate(
            access => access.TrustedProxies.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
                .All(text => System.Net.IPAddress.TryParse(text, out _) || System.Net.IPNetwork.TryParse(text, out _)),
            "Access:TrustedProxies is no list of addresses or networks such as 127.0.0.1,10.0.0.0/8.");
        services.AddSingleton<AdminKey>();
        services.AddSingleton<LoopbackGuard>();
        services.AddAuthentication(AccessHandler.Scheme).AddScheme<Microsoft.AspNetCore.Authentication.AuthenticationSchemeOptions, AccessHandler>(AccessHandler.Scheme, null);
        services.AddAuthorizationBuilder()
            .AddPolicy(Admin, policy => policy.RequireRole(Admin))
            .AddPolicy(Inference, policy => policy.RequireRole(Inference))
            .AddPolicy(Metrics, policy => policy.RequireRole(Metrics))
            .SetFallbackPolicy(new AuthorizationPolicyBuilder().RequireRole(Admin).Build());
        return services;
    }

    /// <summary>Gives routes the rule <see cref="Admin"/>.</summary>
    public static T AdminOnly<T>(this T routes) where T : IEndpointConventionBuilder => routes.RequireAuthorization(Admin);

    /// <summary>Gives routes no rule: everybody may use them.</summary>
    public static T Public<T>(this T routes) where T : IEndpointConventionBuilder => routes.AllowAnonymous();
}
