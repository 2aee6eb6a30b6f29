using System.CommandLine;
using ModelHost.Agent;
using ModelHost.Agent.Downloads;
using ModelHost.Cluster;
using ModelHost.Hosting;

namespace ModelHost.Cli;

/// <summary><c>modelhost node</c>.</summary>
internal static class NodeCommand
{
    private static readonly string[] s_sections = [NodeOptions.Section, DownloadOptions.Section, "Logging"];

    /// <summary>Makes it.</summary>
    public static Command Make()
    {
        var join = new Option<string?>("--join") { Description = "Host and port where the control plane takes nodes; needed once.", HelpName = "HOST:8443" };
        var token = new Option<string?>("--token") { Description = "The join token from 'modelhost token create'; needed once.", HelpName = "TOKEN" };
        var data = new Option<string?>("--data") { Description = "The data folder. Default: ~/.local/share/modelhost-node", HelpName = "FOLDER" };
        var listen = new Option<string>("--listen")
        {
            Description = "Address and port for the control plane.",
            HelpName = "ADDRESS",
            DefaultValueFactory = _ => NodeSettings.DefaultListen,
        };
        var name = new Option<string?>("--name") { Description = "What the node calls itself. Default: its hostname.", HelpName = "NAME" };
        var logJson = new Option<bool>("--log-json") { Description = "Write log lines as JSON." };
        var configuration = new Argument<string[]>("Section:Key=value") { Description = "Settings, such as Node:NvidiaSmi=/opt/nvidia-smi." };
        var command = new Command("node", "Make this machine a node of a control plane elsewhere.");
        foreach (var option in (Option[])[join, token, data, listen, name, logJson])
            command.Options.Add(option);
        command.Arguments.Add(configuration);
        join.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<string?>() is { } text && !(Uri.TryCreate($"https://{text}", UriKind.Absolute, out var address) && address.Authority == text && !address.IsDefaultPort))
                result.AddError($"--join: '{text}' is no host with a port, such as gpu-master:8443.");
        });
        listen.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<string>() is { } text && !EndPointTextAttribute.IsEndPoint(text))
                result.AddError($"--listen: '{text}' is no IP address with a port, such as {NodeSettings.DefaultListen}.");
        });
        configuration.Validators.Add(result => CommandLine.CheckSettings(result, s_sections));
        command.SetAction((parsed, cancellationToken) => RunAsync(new NodeSettings
        {
            Join = parsed.GetValue(join),
            Token = parsed.GetValue(token),
            Data = parsed.GetValue(data),
            Listen = parsed.GetValue(listen) ?? NodeSettings.DefaultListen,
            Name = parsed.GetValue(name),
            LogJson = parsed.GetValue(logJson),
            Configuration = parsed.GetValue(configuration) ?? [],
        }, cancellationToken));
        return command;
    }

    private static Task<int> RunAsync(NodeSettings settings, CancellationToken cancellationToken) => CommandLine.GuardAsync(async () =>
    {
        using var folder = DataFolder.Open(settings.DataPath);
        try
        {
            using var membership = await NodeHost.MembershipAsync(settings, folder, TimeProvider.System, cancellationToken);
            await using var app = NodeHost.Build(settings, folder, membership, TimeProvider.System);
            await app.StartWholeAsync(cancellationToken);
            Lifetime.LogListening(app.Logger, string.Join(", ", app.Urls));
            await app.WaitForShutdownAsync(cancellationToken);
            Lifetime.LogStopped(app.Logger);
            return 0;
        }
        catch (ClusterException e)
        {
            return CommandLine.Refuse(e.Message);
        }
        catch (HttpRequestException e)
        {
            return CommandLine.Refuse($"the control plane at {settings.Join} cannot be reached: {e.GetBaseException().Message}");
        }
    }, settings.Listen, "--listen");
}
