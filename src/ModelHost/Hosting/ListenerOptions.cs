using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.HttpOverrides;
using Microsoft.Extensions.Options;
using ModelHost.Access;
using ModelHost.Common;
using IPNetwork = System.Net.IPNetwork;

namespace ModelHost.Hosting;

/// <summary>How the control plane is reached. Section <c>Listener</c>.</summary>
public sealed class ListenerOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Listener";

    /// <summary>Prefix under which everything is reached, such as <c>/modelhost</c>; empty: none.</summary>
    public string PathBase { get; set; } = "";

    /// <summary>PEM file of the certificate, with its chain; empty: no TLS.</summary>
    public string TlsCert { get; set; } = "";

    /// <summary>PEM file of the certificate's private key.</summary>
    public string TlsKey { get; set; } = "";
}

/// <summary>Sets the listener up: TLS, prefix, and whom to believe about clients behind a proxy.</summary>
internal static partial class Listener
{
    private const int LongestPrefix = 1024;

    /// <summary>Reads the certificate, if one is named, for all <c>https</c> addresses; they speak HTTP/1.1 and HTTP/2.</summary>
    /// <exception cref="InvalidDataException">It cannot be read, or there is no <c>https</c> address for it.</exception>
    public static void UseTls(this WebApplicationBuilder builder, string urls)
    {
        var options = builder.Configuration.GetSection(ListenerOptions.Section).Get<ListenerOptions>() ?? new ListenerOptions();
        var isWanted = options.TlsCert.Length > 0 || options.TlsKey.Length > 0;
        if (isWanted != urls.Split(';').Any(url => url.StartsWith("https:", StringComparison.OrdinalIgnoreCase)))
            throw new InvalidDataException(isWanted
                ? "with --tls-cert and --tls-key the address in --urls has to begin with https://."
                : "an https:// address needs --tls-cert and --tls-key.");
        if (!isWanted)
            return;
        try
        {
            // only a certificate that went through PKCS #12 keeps its key for all uses
            using var pem = X509Certificate2.CreateFromPemFile(options.TlsCert, options.TlsKey.Length > 0 ? options.TlsKey : null);
            var certificate = X509CertificateLoader.LoadPkcs12(pem.Export(X509ContentType.Pkcs12), null);
            var chain = new X509Certificate2Collection();
            chain.ImportFromPemFile(options.TlsCert);
            builder.WebHost.UseKestrelHttpsConfiguration();
            builder.WebHost.ConfigureKestrel(kestrel => kestrel.ConfigureHttpsDefaults(https =>
                (https.ServerCertificate, https.ServerCertificateChain) = (certificate, chain)));
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"the certificate {options.TlsCert} with its key {options.TlsKey} cannot be read.", e);
        }
    }

    /// <summary>Adds what tells the client's address, scheme and host apart from those of a proxy; only of trusted ones.</summary>
    public static void AddListener(this IServiceCollection services)
    {
        services.AddCheckedOptions<ListenerOptions>(ListenerOptions.Section)
            .Validate(options => options.PathBase.Length == 0 || (options.PathBase.StartsWith('/') && !options.PathBase.EndsWith('/')),
                "Listener:PathBase has to begin with a slash and end without one.");
        services.AddOptions<ForwardedHeadersOptions>().Configure<IOptions<AccessOptions>>((forwarded, access) =>
        {
            forwarded.ForwardedHeaders = ForwardedHeaders.XForwardedFor | ForwardedHeaders.XForwardedProto | ForwardedHeaders.XForwardedHost | ForwardedHeaders.XForwardedPrefix;
            forwarded.ForwardLimit = null; // as far as the trusted ones go
            forwarded.KnownProxies.Clear();
            forwarded.KnownIPNetworks.Clear();
            foreach (var network in access.Value.ProxyNetworks())
                forwarded.KnownIPNetworks.Add(network);
        });
    }

    /// <summary>Puts the prefix and the believed headers before routing.</summary>
    public static void UseListener(this WebApplication app)
    {
        if (app.Services.GetRequiredService<IOptions<AccessOptions>>().Value.ProxyNetworks().Any())
            app.UseForwardedHeaders().Use(TakePrefix);
        if (app.Services.GetRequiredService<IOptions<ListenerOptions>>().Value.PathBase is { Length: > 0 } prefix)
            app.UsePathBase(prefix);
    }

    // a proxy that tells its prefix may have taken it off the path, or not; one that passes on what a client says may tell anything, and it stands in links
    private static Task TakePrefix(HttpContext context, RequestDelegate next)
    {
        if (context.Request.PathBase is { HasValue: true } told)
        {
            var prefix = new PathString(told.Value!.Length <= LongestPrefix && Prefix().IsMatch(told.Value) ? told.Value!.TrimEnd('/') : null);
            context.Request.PathBase = prefix;
            if (prefix.HasValue && context.Request.Path.StartsWithSegments(prefix, out var rest))
                context.Request.Path = rest;
        }
        return next(context);
    }

    /// <summary>Warns of keys and prompts that anybody on the network can read.</summary>
    public static void WarnOfCleartext(this WebApplication app)
    {
        foreach (var url in app.Urls.Where(url => url.StartsWith("http:", StringComparison.OrdinalIgnoreCase) && !LoopbackGuard.IsLoopback(url)))
            LogCleartext(app.Logger, url);
    }

    /// <summary>The networks whose proxies are believed.</summary>
    internal static IEnumerable<IPNetwork> ProxyNetworks(this AccessOptions access) =>
        access.TrustedProxies.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Select(text =>
            System.Net.IPAddress.TryParse(text, out var address)
                ? new IPNetwork(address, address.GetAddressBytes().Length * 8) : IPNetwork.Parse(text));

    [GeneratedRegex(@"\A(?:/[A-Za-z0-9_~@+-][A-Za-z0-9._~@+-]*)+/?\z", RegexOptions.NonBacktracking)]
    private static partial Regex Prefix();

    [LoggerMessage(4, LogLevel.Warning, "{Url} is cleartext and reached from other machines: keys and prompts can be read on the way. Use --tls-cert and --tls-key, or a proxy with TLS.")]
    private static partial void LogCleartext(Microsoft.Extensions.Logging.ILogger logger, string url);
}
