using System.CommandLine;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using System.Net;
using System.Net.Sockets;
using System.Reflection;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Options;
using ModelHost.Agent;
using ModelHost.Agent.Runtimes;
using ModelHost.Hosting;
using ModelHost.Simulator;

namespace ModelHost.Cli;

/// <summary>The command line of <c>modelhost</c>.</summary>
internal static partial class CommandLine
{
    private const int DemoPorts = 100;

    // by the name of the options that they become, each of which says its section itself; those of the libraries have none of ours
    private static readonly Dictionary<string, string> s_sections = ((Assembly[])[typeof(CommandLine).Assembly, typeof(NodeOptions).Assembly])
        .SelectMany(assembly => assembly.GetTypes())
        .Where(type => !type.IsNested)
        .Select(type => (type.Name, Section: type.GetField(nameof(NodeOptions.Section)) is { IsLiteral: true } field ? field.GetRawConstantValue() as string : null))
        .Where(options => options.Section is not null)
        .Concat([(Name: "Kestrel", Section: "Kestrel"), (Name: "Logging", Section: "Logging")])
        .OrderBy(options => options.Section, StringComparer.Ordinal)
        .ToDictionary(options => options.Name, options => options.Section!);

    /// <summary>The sections that a control plane can be given settings of.</summary>
    internal static IReadOnlyCollection<string> Sections => s_sections.Values;

    /// <summary>Runs the role that the first word names; without one, <c>serve</c>.</summary>
    /// <returns>The exit code.</returns>
    public static Task<int> RunAsync(string[] arguments) => arguments switch
    {
        ["simulate", .. var rest] => SimulatorCommand.RunAsync(rest), // its flags are vLLM's, down to the wording of errors
        [EngineShim.Role, var sidecar, var attempt] => Task.FromResult(EngineShim.Run(sidecar, attempt)),
        ["serve" or "node" or "token" or "models" or "backends" or "jobs", ..] or ["-?" or "-h" or "--help" or "--version", ..] => RunAsync(Root().Parse(arguments)),
        _ => RunAsync(Root().Parse(["serve", .. arguments])),
    };

    private static Task<int> RunAsync(ParseResult parsed) => parsed.Action is ParseErrorAction
        ? Task.FromResult(Refuse($"{string.Join(' ', parsed.Errors.Select(error => error.Message))} See {Path(parsed.CommandResult)} --help."))
        // signals are the host's to hear: this library would end the process 2 s after one, whatever is under way
        : parsed.InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = null });

    // an error about a command is told with the help that lists what it takes
    private static string Path(CommandResult command) => command.Parent is CommandResult parent ? $"{Path(parent)} {command.Command.Name}" : "modelhost";

    private static RootCommand Root()
    {
        var root = new RootCommand("Serve models on your GPU servers behind one OpenAI-compatible endpoint.");
        var serve = new Command("serve", "Run the control plane. This is also what happens without a command.");
        AddServe(root);
        AddServe(serve);
        root.Subcommands.Add(serve);
        root.Subcommands.Add(NodeCommand.Make());
        root.Subcommands.Add(TokenCommand.Make());
        root.Subcommands.Add(GalleryCommand.Models());
        root.Subcommands.Add(GalleryCommand.Backends());
        root.Subcommands.Add(JobsCommand.Make());
        root.Subcommands.Add(new Command("simulate", "Stand in for a vLLM server: modelhost simulate MODEL --port PORT, with vLLM's own flags."));
        return root;
    }

    private static void AddServe(Command command)
    {
        var data = new Option<string?>("--data") { Description = "The data folder. Default: ~/.local/share/modelhost", HelpName = "FOLDER" };
        var urls = new Option<string?>("--urls") { Description = $"Addresses to listen on, separated by semicolons. Default: {ServeSettings.DefaultUrl}", HelpName = "URLS" };
        var demo = new Option<bool>("--demo") { Description = "Serve a small model on the built-in simulator, from a data folder of its own." };
        var noLocalNode = new Option<bool>("--no-local-node") { Description = "Run no engines on this machine." };
        var trustedLan = new Option<bool>("--trusted-lan") { Description = "Let everybody who reaches the listener do everything." };
        var pathBase = new Option<string?>("--path-base") { Description = "Prefix under which everything is reached, such as /modelhost.", HelpName = "PREFIX" };
        var tlsCert = new Option<string?>("--tls-cert") { Description = "Certificate for https, with its chain, as PEM.", HelpName = "FILE" };
        var tlsKey = new Option<string?>("--tls-key") { Description = "Its private key, as PEM.", HelpName = "FILE" };
        var proxies = new Option<string?>("--trusted-proxies") { Description = "Reverse proxies whose X-Forwarded headers are believed: addresses and networks, separated by commas.", HelpName = "LIST" };
        var clusterListen = new Option<string?>("--cluster-listen") { Description = "Address and port for nodes of other machines. Default: 0.0.0.0:8443, opened by the first join token.", HelpName = "ADDRESS" };
        var modelsConfig = new Option<string?>("--models-config") { Description = "File with models to install at start: a YAML list of what POST /models/apply takes.", HelpName = "FILE" };
        var logJson = new Option<bool>("--log-json") { Description = "Write log lines as JSON." };
        var configuration = new Argument<string[]>("Section:Key=value") { Description = "Settings, such as Node:NvidiaSmi=/opt/nvidia-smi." };
        foreach (var option in (Option[])[data, urls, tlsCert, tlsKey, pathBase, proxies, trustedLan, noLocalNode, demo, clusterListen, modelsConfig, logJson])
            command.Options.Add(option);
        if (command is not RootCommand) // it would take the name of a command for one
            command.Arguments.Add(configuration);
        urls.Validators.Add(result =>
        {
            foreach (var url in (result.GetValueOrDefault<string?>() ?? "").Split(';').Where(url => !IsAddress(url)))
                result.AddError($"--urls: '{url}' is not an address such as {ServeSettings.DefaultUrl}.");
        });
        configuration.Validators.Add(result => CheckSettings(result, Sections));
        command.SetAction((parsed, cancellationToken) => ServeAsync(new ServeSettings
        {
            Data = parsed.GetValue(data),
            Urls = parsed.GetValue(urls),
            Demo = parsed.GetValue(demo),
            NoLocalNode = parsed.GetValue(noLocalNode),
            TrustedLan = parsed.GetValue(trustedLan),
            LogJson = parsed.GetValue(logJson),
            PathBase = parsed.GetValue(pathBase),
            TlsCert = parsed.GetValue(tlsCert),
            TlsKey = parsed.GetValue(tlsKey),
            TrustedProxies = parsed.GetValue(proxies),
            ClusterListen = parsed.GetValue(clusterListen),
            ModelsConfig = parsed.GetValue(modelsConfig),
            Configuration = parsed.GetValue(configuration) ?? [],
        }, cancellationToken));
    }

    /// <summary>Refuses what is no setting, or of a section that the role does not have.</summary>
    public static void CheckSettings(ArgumentResult result, IReadOnlyCollection<string> sections)
    {
        foreach (var token in result.Tokens.Select(t => t.Value))
        {
            var section = token.Split('=')[0].Split(':');
            if (section.Length == 1 || !token.Contains('=', StringComparison.Ordinal))
                result.AddError($"'{token}' is neither an option nor a setting of the form Section:Key=value.");
            else if (!sections.Any(known => token.StartsWith(known + ':', StringComparison.OrdinalIgnoreCase)))
                result.AddError($"'{token}': there is no section '{section[0]}', only {string.Join(", ", sections)}.");
        }
    }

    private static Task<int> ServeAsync(ServeSettings settings, CancellationToken cancellationToken) =>
        GuardAsync(() => ServeCoreAsync(settings, cancellationToken), settings.Urls ?? ServeSettings.DefaultUrl, "--urls");

    private static async Task<int> ServeCoreAsync(ServeSettings settings, CancellationToken cancellationToken)
    {
        using var folder = DataFolder.Open(settings.DataPath);
        if (settings is not { Demo: true, Urls: null })
            return await ServeAsync(settings, folder, cancellationToken);
        var first = new Uri(ServeSettings.DefaultUrl).Port;
        for (var port = FreePort(first); ; port = FreePort(port + 1))
        {
            var address = $"127.0.0.1:{port}";
            try
            {
                return await ServeAsync(settings with { Urls = $"{(settings.TlsCert is null ? "http" : "https")}://{address}" }, folder, cancellationToken);
            }
            catch (IOException e) when (e.InnerException is Microsoft.AspNetCore.Connections.AddressInUseException && e.Message.Contains($"{address}:", StringComparison.Ordinal) && port < first + DemoPorts)
            {
                // somebody took it in between: the next one
            }
        }
    }

    private static async Task<int> ServeAsync(ServeSettings settings, DataFolder folder, CancellationToken cancellationToken)
    {
        await using var app = ServeHost.Build(settings, folder, settings.Demo ? Demo.Add : null);
        await app.StartWholeAsync(cancellationToken);
        Lifetime.LogListening(app.Logger, string.Join(", ", app.Urls));
        app.WarnOfCleartext();
        await app.WaitForShutdownAsync(cancellationToken);
        Lifetime.LogStopped(app.Logger);
        return 0;
    }

    /// <summary>Runs a role, and says in one line what keeps it from beginning.</summary>
    /// <param name="run">The role.</param>
    /// <param name="listen">Where it listens.</param>
    /// <param name="option">The option that moves it.</param>
    public static async Task<int> GuardAsync(Func<Task<int>> run, string listen, string option)
    {
        try
        {
            return await run();
        }
        catch (DataFolderException e)
        {
            return Refuse(e.Message);
        }
        catch (OptionsValidationException e)
        {
            return Refuse($"the configuration is wrong: {string.Join("\n  ", e.Failures)}");
        }
        catch (AggregateException e) when (e.InnerExceptions.All(inner => inner is OptionsValidationException))
        {
            return Refuse("the configuration is wrong: "
                + string.Join("\n  ", e.InnerExceptions.Cast<OptionsValidationException>().SelectMany(inner => inner.Failures)));
        }
        catch (InvalidOperationException e) when (e.Source is "Microsoft.Extensions.Configuration.Binder" or "Microsoft.Extensions.Logging.Configuration")
        {
            var unknown = UnknownSetting().Match(e.Message);
            return Refuse("the configuration is wrong: " + (unknown.Success ? $"there is no setting {unknown.Groups["names"].Value} in {s_sections.GetValueOrDefault(unknown.Groups["options"].Value, unknown.Groups["options"].Value)}." : e.Message));
        }
        catch (InvalidDataException e)
        {
            return Refuse($"the configuration is wrong: {e.Message} {e.GetBaseException().Message}");
        }
        catch (IOException e) when (e.InnerException is Microsoft.AspNetCore.Connections.AddressInUseException)
        {
            return Refuse($"{e.Message} Choose another address with {option}.");
        }
        catch (SocketException e)
        {
            return Refuse($"cannot listen on {listen}: {e.Message}. Choose another address with {option}.");
        }
    }

    private static bool IsAddress(string url)
    {
        try
        {
            return BindingAddress.Parse(url) is { Scheme: "http" or "https", Port: >= 0 and <= IPEndPoint.MaxPort };
        }
        catch (FormatException)
        {
            return false;
        }
    }

    // the binder's own words name its options, not ours
    [GeneratedRegex(@"not found on the instance of ModelHost\.(\w+\.)*(?<options>\w+): (?<names>.*)$")]
    private static partial Regex UnknownSetting();

    /// <summary>Says why something does not begin.</summary>
    /// <returns>The exit code.</returns>
    public static int Refuse(string why)
    {
        Console.Error.WriteLine($"modelhost: {why}");
        return 1;
    }

    private static int FreePort(int first)
    {
        for (var port = first; port < first + DemoPorts; port++)
        {
            try
            {
                using var listener = new TcpListener(IPAddress.Loopback, port);
                listener.Start();
                return port;
            }
            catch (SocketException)
            {
                // taken
            }
        }
        return first;
    }
}

/// <summary>The start of a role, and the first and the last line of its log.</summary>
internal static partial class Lifetime
{
    /// <summary>Starts it; where it cannot listen, it ends what has begun by then, before the services go that this uses.</summary>
    public static async Task StartWholeAsync(this WebApplication app, CancellationToken cancellationToken)
    {
        try
        {
            await app.StartAsync(cancellationToken);
        }
        catch
        {
            await app.StopAsync(CancellationToken.None).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing); // why it did not start is what counts
            throw;
        }
    }

    [LoggerMessage(1, LogLevel.Information, "Listening on {Urls}.")]
    public static partial void LogListening(ILogger logger, string urls);

    [LoggerMessage(3, LogLevel.Information, "ModelHost has ended; its engines go on.")]
    public static partial void LogStopped(ILogger logger);
}
