using System.Globalization;
using System.Reflection;
using Microsoft.AspNetCore.Http.Metadata;

namespace ModelHost.Common;

/// <summary>Refuses a request with a parameter that cannot be read, by its name, before anything else of it is looked at.</summary>
/// <remarks>
/// The handlers that are generated at build time do not say which optional parameter they could not read, run the filters of the route
/// all the same, and take an empty value for none.
/// </remarks>
internal static class ParameterCheck
{
    private static readonly MethodInfo Reads = ((Func<string, bool>)Read<int>).Method.GetGenericMethodDefinition();

    /// <summary>Checks the parameters of all routes that are mapped on these.</summary>
    public static T WithParameterCheck<T>(this T routes) where T : IEndpointConventionBuilder
    {
        routes.Finally(AddTo);
        return routes;
    }

    private static void AddTo(EndpointBuilder endpoint)
    {
        var checks = endpoint.Metadata.OfType<IParameterBindingMetadata>().Where(parameter => parameter.HasTryParse)
            .Select(parameter => MakeCheck(parameter, (RouteEndpointBuilder)endpoint)).ToArray();
        if (checks.Length == 0 || endpoint.RequestDelegate is not { } handle)
            return;
        endpoint.RequestDelegate = context =>
        {
            foreach (var check in checks)
                check(context.Request);
            return handle(context);
        };
    }

    private static Action<HttpRequest> MakeCheck(IParameterBindingMetadata parameter, RouteEndpointBuilder endpoint)
    {
        var attributes = parameter.ParameterInfo.GetCustomAttributes().ToArray();
        var query = attributes.OfType<IFromQueryMetadata>().FirstOrDefault();
        var header = attributes.OfType<IFromHeaderMetadata>().FirstOrDefault();
        var name = query?.Name ?? header?.Name ?? parameter.Name;
        var isInPath = query is null && header is null && endpoint.RoutePattern.GetParameter(name) is not null;
        var type = Nullable.GetUnderlyingType(parameter.ParameterInfo.ParameterType) ?? parameter.ParameterInfo.ParameterType;
        // throws for a type that parses itself in another way: whoever adds one hears of it at the first start
        var reads = type.IsEnum ? text => Enum.TryParse(type, text, out _) : Reads.MakeGenericMethod(type).CreateDelegate<Func<string, bool>>();
        return request =>
        {
            var text = isInPath ? (string?)request.RouteValues[name] : header is null ? (string?)request.Query[name] : request.Headers[name];
            if (text is not null && !reads(text))
                throw new BadHttpRequestException($"Failed to bind parameter \"{type.Name} {name}\" from \"{text}\"."); // in the words of the framework
        };
    }

    private static bool Read<T>(string text) where T : IParsable<T> => T.TryParse(text, CultureInfo.InvariantCulture, out _);
}
