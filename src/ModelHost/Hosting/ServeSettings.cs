namespace ModelHost.Hosting;

/// <summary>What the command line says about the control plane.</summary>
public sealed record ServeSettings
{
    /// <summary>The address listened on when nothing else is said.</summary>
    public const string DefaultUrl = "http://127.0.0.1:8000";

    /// <summary>The same with a certificate.</summary>
    public const string DefaultTlsUrl = "https://127.0.0.1:8000";

    /// <summary>The data folder; null: the default one, or the demo's own.</summary>
    public string? Data { get; init; }

    /// <summary>Addresses to listen on, separated by semicolons; null: <see cref="DefaultUrl"/>.</summary>
    public string? Urls { get; init; }

    /// <summary>Whether a model is served by the simulator, to try things out.</summary>
    public bool Demo { get; init; }

    /// <summary>Whether this machine takes no engines.</summary>
    public bool NoLocalNode { get; init; }

    /// <summary>Whether everybody who reaches the listener may do everything.</summary>
    public bool TrustedLan { get; init; }

    /// <summary>Whether log lines are JSON.</summary>
    public bool LogJson { get; init; }

    /// <summary>Prefix under which everything is reached.</summary>
    public string? PathBase { get; init; }

    /// <summary>PEM file of the certificate.</summary>
    public string? TlsCert { get; init; }

    /// <summary>PEM file of its key.</summary>
    public string? TlsKey { get; init; }

    /// <summary>Reverse proxies that are believed.</summary>
    public string? TrustedProxies { get; init; }

    /// <summary>Address and port for nodes, opened at start; null: opened when it is needed.</summary>
    public string? ClusterListen { get; init; }

    /// <summary>File with models to install at start; null: none.</summary>
    public string? ModelsConfig { get; init; }

    /// <summary>Configuration given as <c>Section:Key=value</c>.</summary>
    public IReadOnlyList<string> Configuration { get; init; } = [];

    /// <summary>Where the data is when nothing else is said.</summary>
    public string DataPath => Data ?? Path.Combine(
        Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify), Demo ? "modelhost-demo" : "modelhost");
}
