using ModelHost.Common;
using ModelHost.Core.Access;

namespace ModelHost.Access;

/// <summary>What a route needs; every route has exactly one, and one without is the administrator's alone.</summary>
internal sealed class AccessRule
{
    private readonly string _name;

    private AccessRule(string name, bool isAdmin = false, KeyRoles role = KeyRoles.None) => (_name, IsAdmin, Role) = (name, isAdmin, role);

    /// <summary>Everybody.</summary>
    public static AccessRule Public { get; } = new("public");

    /// <summary>Needs the admin key, or a request from this machine to a listener bound to loopback only.</summary>
    public static AccessRule Admin { get; } = new("admin", isAdmin: true);

    /// <summary>
    /// As <see cref="Admin"/>, and never for a page of another origin, whatever it sends: browsers open a WebSocket across origins without
    /// asking the server first.
    /// </summary>
    public static AccessRule AdminSocket { get; } = new("admin socket", isAdmin: true);

    /// <summary>
    /// Inference: needs an API key for it as soon as a permanent one exists. Before that as <see cref="Admin"/>, but any key is taken from
    /// this machine.
    /// </summary>
    public static AccessRule Inference { get; } = new("inference", role: KeyRoles.Inference);

    /// <summary>Scraping: as <see cref="Admin"/>, or an API key for it; any key is taken from this machine.</summary>
    public static AccessRule Metrics { get; } = new("metrics", role: KeyRoles.Metrics);

    /// <summary>Making API keys: as <see cref="Admin"/>, or a permanent API key, whose own limits then hold.</summary>
    public static AccessRule KeyMaking { get; } = new("key making", isAdmin: true);

    /// <summary>Whether it is the administrator's, for whom a wrong key is an error even where none is needed.</summary>
    public bool IsAdmin { get; }

    /// <summary>The role that lets an API key in; none: no role does.</summary>
    public KeyRoles Role { get; }

    public override string ToString() => _name;
}

/// <summary>Gives routes their rules and applies them.</summary>
internal static class AccessFeature
{
    /// <summary>Adds what decides.</summary>
    public static IServiceCollection AddAccess(this IServiceCollection services)
    {
        services.AddCheckedOptions<AccessOptions>(AccessOptions.Section).Validate(
            access => access.TrustedProxies.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
                .All(text => System.Net.IPAddress.TryParse(text, out _) || System.Net.IPNetwork.TryParse(text, out _)),
            "Access:TrustedProxies is no list of addresses or networks such as 127.0.0.1,10.0.0.0/8.");
        return services.AddSingleton<AdminKey>().AddSingleton<LoopbackGuard>().AddSingleton<NodeAccess>();
    }

    /// <summary>Applies the rules to every request, with or without a route; after routing.</summary>
    public static void UseAccess(this IApplicationBuilder app) => app.UseMiddleware<AccessGate>();

    /// <summary>Gives routes the rule <see cref="AccessRule.Admin"/>.</summary>
    public static T AdminOnly<T>(this T routes) where T : IEndpointConventionBuilder => routes.WithMetadata(AccessRule.Admin);

    /// <summary>Gives routes the rule <see cref="AccessRule.AdminSocket"/>.</summary>
    public static T AdminSocketOnly<T>(this T routes) where T : IEndpointConventionBuilder => routes.WithMetadata(AccessRule.AdminSocket);

    /// <summary>Gives routes the rule <see cref="AccessRule.Public"/>.</summary>
    public static T Public<T>(this T routes) where T : IEndpointConventionBuilder => routes.WithMetadata(AccessRule.Public);

    /// <summary>Gives routes the rule <see cref="AccessRule.Inference"/>.</summary>
    public static T ForInference<T>(this T routes) where T : IEndpointConventionBuilder => routes.WithMetadata(AccessRule.Inference);

    /// <summary>Gives routes the rule <see cref="AccessRule.KeyMaking"/>.</summary>
    public static T ForKeyMakers<T>(this T routes) where T : IEndpointConventionBuilder => routes.WithMetadata(AccessRule.KeyMaking);

    /// <summary>Gives routes the rule <see cref="AccessRule.Metrics"/>.</summary>
    public static T ForScraping<T>(this T routes) where T : IEndpointConventionBuilder => routes.WithMetadata(AccessRule.Metrics);
}
