using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.Extensions.Options;
using ModelHost.Access;
using ModelHost.Agent;
using ModelHost.Agent.Downloads;
using ModelHost.Agent.Proxy;
using ModelHost.Cluster;
using ModelHost.Common;
using ModelHost.Data;
using ModelHost.Features.Admin;
using ModelHost.Features.ApiKeys;
using ModelHost.Features.Backends;
using ModelHost.Features.Configs;
using ModelHost.Features.Deployments;
using ModelHost.Features.Events;
using ModelHost.Features.Galleries;
using ModelHost.Features.Monitor;
using ModelHost.Features.Nodes;
using ModelHost.Features.Releases;
using ModelHost.Features.Settings;
using ModelHost.Features.Stores;
using ModelHost.Features.Usage;
using ModelHost.Features.Welcome;
using ModelHost.Gateway;
using ModelHost.Observability;
using ModelHost.Reconcile;
using Serilog;
using Serilog.Extensions.Logging;
using Serilog.Formatting.Json;

namespace ModelHost.Hosting;

/// <summary>Builds the control plane.</summary>
internal static partial class ServeHost
{
    private const long MaxBody = 1024 * 1024;
    private static readonly TimeSpan ShutdownDeadline = TimeSpan.FromSeconds(30);

    /// <summary>Builds it on a data folder that is already owned.</summary>
    public static WebApplication Build(ServeSettings settings, DataFolder folder, Action<WebApplicationBuilder>? configure = null)
    {
        var builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory });
        AddSources(builder, folder, FromSwitches(settings), settings.Configuration);
        AddLogging(builder);
        var urls = settings.Urls ?? (settings.TlsCert is null ? ServeSettings.DefaultUrl : ServeSettings.DefaultTlsUrl);
        builder.WebHost.UseUrls(urls);
        builder.UseTls(urls);
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = MaxBody;
        });
        AddServices(builder.Services, folder);
        AddDownloads(builder.Services);
        if (!settings.NoLocalNode)
            AddLocalNode(builder.Services, new NodeIdentity(folder.ClusterId, folder.NodeId, folder.Path));
        configure?.Invoke(builder);
        var app = builder.Build();
        app.Services.GetService<IStartupValidator>()?.Validate(); // all of it at once, before the first option is read
        // not earlier: the host reads its own options while it is built, and an option that is wrong would hide the others
        app.Services.GetRequiredService<IOptions<HostOptions>>().Value.ShutdownTimeout =
            Longer(app.Services.GetRequiredService<IOptions<GatewayOptions>>().Value.DrainTimeout, app.Services.GetRequiredService<IOptions<NodeOptions>>().Value.DrainTimeout)
            + ShutdownDeadline;
        app.Services.GetRequiredService<AdminKey>(); // made at first start, not at the first request
        if (app.Services.GetRequiredService<IOptions<AccessOptions>>().Value.TrustedLan)
            LogTrustedLan(app.Logger);
        Map(app);
        return app;
    }

    private static TimeSpan Longer(TimeSpan a, TimeSpan b) => a > b ? a : b;

    /// <summary>Reads the configuration of a role: built-in values, the file of the data folder, the environment, switches, settings; the last counts.</summary>
    public static void AddSources(WebApplicationBuilder builder, DataFolder folder, Dictionary<string, string?> switches, IEnumerable<string> settings)
    {
        builder.Configuration.AddInMemoryCollection(LogLevels());
        builder.Configuration.AddInMemoryCollection(FromEngines());
        builder.Configuration.AddJsonFile(folder.File("modelhost.json"), optional: true, reloadOnChange: false);
        builder.Configuration.AddEnvironmentVariables("MODELHOST_");
        builder.Configuration.AddInMemoryCollection(switches);
        builder.Configuration.AddInMemoryCollection(settings.Select(setting => setting.Split('=', 2))
            .GroupBy(pair => pair[0], StringComparer.OrdinalIgnoreCase) // the last of a setting given twice counts
            .Select(given => KeyValuePair.Create(given.Key, given.Last().ElementAtOrDefault(1))));
    }

    private static void AddServices(IServiceCollection services, DataFolder folder)
    {
        services.AddSingleton(folder);
        services.AddSingleton(TimeProvider.System);
        services.AddDataProtection().SetApplicationName("ModelHost").PersistKeysToFileSystem(folder.PrivateFolder("keys"));
        services.Configure<RouteHandlerOptions>(options => options.ThrowOnBadRequest = true);
        services.ConfigureHttpJsonOptions(options =>
        {
            options.SerializerOptions.PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower;
            options.SerializerOptions.NumberHandling = JsonNumberHandling.Strict;
            options.SerializerOptions.RespectNullableAnnotations = true;
            options.SerializerOptions.AllowDuplicateProperties = false; // whoever looked at the request before may have taken the other one
        });
        services.AddListener();
        services.AddValidation();
        services.AddProblems();
        services.AddData(folder);
        services.AddAccess();
        services.AddEvents();
        services.AddRuntimeSettings();
        services.AddNodes();
        services.AddReleases();
        services.AddDeployments();
        services.AddConfigs();
        services.AddApiKeys();
        services.AddAdmin();
        services.AddGateway();
        services.AddStores();
        services.AddMonitor();
        services.AddGalleries();
        services.AddBackends();
        services.AddModelHostMetrics();
        services.AddApiDocument();
        services.AddSingleton<ReconcileService>().AddHostedService(provider => provider.GetRequiredService<ReconcileService>());
        services.AddCluster();
        services.AddHostedService<NodeHistoryWriter>(); // behind what brings the database up to date, as the next
        services.AddJobs(); // as these
        services.AddBackendUpgrades(); // as these
        services.AddUsage(); // behind what brings the database up to date
    }

    /// <summary>Adds the node of this machine.</summary>
    public static void AddLocalNode(IServiceCollection services, NodeIdentity identity)
    {
        services.AddCheckedOptions<NodeOptions>(NodeOptions.Section)
            .Validate(node => node.EnginePortFirst <= node.EnginePortLast, "Node:EnginePortFirst is above Node:EnginePortLast.")
            .Validate(node => Uri.TryCreate(node.DockerHost, UriKind.Absolute, out _), "Node:DockerHost is no address such as unix:///var/run/docker.sock.")
            .Validate(node => node.PodmanHost.Length == 0 || Uri.TryCreate(node.PodmanHost, UriKind.Absolute, out _),
                "Node:PodmanHost is no address such as unix:///run/podman/podman.sock.");
        services.AddHttpForwarder().AddMetrics();
        services.AddSingleton(provider => ActivatorUtilities.CreateInstance<NodeProxy>(provider, identity, provider.GetRequiredService<IOptions<NodeOptions>>().Value));
        services.AddSingleton(provider => new LocalNode(
            identity, provider.GetRequiredService<IOptions<NodeOptions>>().Value, provider.GetRequiredService<IOptions<DownloadOptions>>().Value,
            provider.GetRequiredService<TimeProvider>(), provider.GetRequiredService<ILoggerFactory>(), provider.GetRequiredService<NodeProxy>()));
        services.AddHostedService(provider => new NodeProxyService(provider.GetRequiredService<NodeProxy>(), provider.GetService<LocalNode>()));
    }

    /// <summary>Adds what both roles download with.</summary>
    public static void AddDownloads(IServiceCollection services)
    {
        services.AddCheckedOptions<DownloadOptions>(DownloadOptions.Section);
        services.AddSingleton(provider => new GuardedHttp(provider.GetRequiredService<IOptions<DownloadOptions>>().Value, provider.GetRequiredService<TimeProvider>()));
    }

    private static void Map(WebApplication app)
    {
        app.UseListener();
        app.UseExceptionHandler();
        // the gateway words all its refusals itself, and each step around it is paid for by every request
        app.UseWhen(static context => !context.Request.Path.StartsWithSegments("/v1"), static rest => rest.UseStatusPages());
        app.Use(static (context, next) =>
        {
            context.Response.Headers.XContentTypeOptions = "nosniff";
            if (context.Request.Headers.TransferEncoding.Count <= 1)
                return next(context);
            // Kestrel takes the last one, and whoever stands before it may have taken the first: what follows may be another's request
            context.Response.Headers.Connection = "close";
            return Problems.WriteAsync(context, StatusCodes.Status400BadRequest, "request.invalid", "The header Transfer-Encoding comes more than once.");
        });
        app.UseRouting();
        app.UseGatewaySwitch();
        app.UseAccess();
        var routes = app.MapGroup("").WithParameterCheck();
        routes.MapWelcome();
        routes.MapReleases("GetVllmVersion");
        routes.MapModelHostMetrics();
        app.MapApiDocument();
        routes.MapGateway();
        routes.MapStores();
        routes.MapMonitor();
        routes.MapGalleries();
        routes.MapEvents();
        var api = routes.MapGroup("/api");
        api.MapHealth("GetApiHealth");
        api.MapReleases("GetApiVllmVersion");
        api.MapDeployments();
        api.MapNodes();
        api.MapBackendJobs();
        api.MapPeers();
        api.MapConfigs();
        api.MapApiKeys();
        api.MapSettings();
        api.MapAdmin();
        api.MapUsage();
    }

    // The level is decided before Serilog is asked: every library asks at every step of a request whether anybody listens.
    public static void AddLogging(WebApplicationBuilder builder)
    {
        var configuration = new LoggerConfiguration()
            .MinimumLevel.Verbose()
            // whoever starts the host is told by the exception
            .Filter.ByExcluding(line => line.MessageTemplate.Text == "Hosting failed to start");
        configuration = builder.Configuration.GetValue<bool>("Log:Json")
            ? configuration.WriteTo.Console(new JsonFormatter(renderMessage: true))
            : configuration.WriteTo.Console(
                outputTemplate: "{Timestamp:HH:mm:ss} {Level:u3} {Message:lj}{NewLine}{Exception}", formatProvider: System.Globalization.CultureInfo.InvariantCulture);
        builder.Logging.ClearProviders();
        // not by AddSerilog, which lets every level of every category through to itself
        builder.Services.AddSingleton<ILoggerProvider>(new SerilogLoggerProvider(configuration.CreateLogger(), dispose: true));
    }

    private static Dictionary<string, string?> LogLevels() => new()
    {
        ["Logging:LogLevel:Default"] = nameof(LogLevel.Information),
        ["Logging:LogLevel:Microsoft"] = nameof(LogLevel.Warning),
        ["Logging:LogLevel:System.Net.Http"] = nameof(LogLevel.Warning),
        // the keys lie in a folder that only their owner can open
        ["Logging:LogLevel:Microsoft.AspNetCore.DataProtection"] = nameof(LogLevel.Error),
        // it would make an activity and a scope for every request, for lines that nobody sees
        ["Logging:LogLevel:Microsoft.AspNetCore.Hosting.Diagnostics"] = nameof(LogLevel.None),
        // it warns of every client that leaves; what fails for other reasons is logged by the gateway
        ["Logging:LogLevel:Yarp"] = nameof(LogLevel.Error),
    };

    private static Dictionary<string, string?> FromEngines()
    {
        var values = new Dictionary<string, string?>();
#pragma warning disable RS0030 // configuration is read here
        if (Environment.GetEnvironmentVariable("DOCKER_HOST") is { Length: > 0 } docker)
#pragma warning restore RS0030
            values[$"{NodeOptions.Section}:{nameof(NodeOptions.DockerHost)}"] = docker;
#pragma warning disable RS0030 // as above
        if (Agent.Runtimes.PodmanSocket.Find("/run", Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR")) is { } podman)
#pragma warning restore RS0030
            values[$"{NodeOptions.Section}:{nameof(NodeOptions.PodmanHost)}"] = $"unix://{podman}";
        return values;
    }

    private static Dictionary<string, string?> FromSwitches(ServeSettings settings)
    {
        var values = new Dictionary<string, string?>();
        if (settings.Demo)
            values[$"{NodeOptions.Section}:{nameof(NodeOptions.ProcessRuntime)}"] = "true";
        if (settings.TrustedLan)
            values[$"{AccessOptions.Section}:{nameof(AccessOptions.TrustedLan)}"] = "true";
        foreach (var (key, value) in (ReadOnlySpan<(string, string?)>)
        [
            ($"{ListenerOptions.Section}:{nameof(ListenerOptions.PathBase)}", settings.PathBase),
            ($"{ListenerOptions.Section}:{nameof(ListenerOptions.TlsCert)}", settings.TlsCert),
            ($"{ListenerOptions.Section}:{nameof(ListenerOptions.TlsKey)}", settings.TlsKey),
            ($"{AccessOptions.Section}:{nameof(AccessOptions.TrustedProxies)}", settings.TrustedProxies),
            ($"{ClusterOptions.Section}:{nameof(ClusterOptions.Listen)}", settings.ClusterListen),
            ($"{GalleryOptions.Section}:{nameof(GalleryOptions.Import)}", settings.ModelsConfig is null ? null : Path.GetFullPath(settings.ModelsConfig)),
            ($"{ClusterOptions.Section}:{nameof(ClusterOptions.Open)}", settings.ClusterListen is null ? null : "true"),
        ])
        {
            if (value is not null)
                values[key] = value;
        }
        if (settings.LogJson)
            values["Log:Json"] = "true";
        return values;
    }

    [LoggerMessage(2, LogLevel.Warning, "Everybody who reaches this listener may do everything (Access:TrustedLan).")]
    private static partial void LogTrustedLan(Microsoft.Extensions.Logging.ILogger logger);
}
