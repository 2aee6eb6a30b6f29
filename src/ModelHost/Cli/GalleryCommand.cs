using System.CommandLine;
using System.Text.Json;
using static ModelHost.Cli.CommandText;

namespace ModelHost.Cli;

/// <summary><c>modelhost models</c> and <c>modelhost backends</c>: lists, installs and removes through the running control plane.</summary>
internal sealed class GalleryCommand
{
    private readonly ServerOptions _server = new();
    private readonly Option<bool> _json = new("--json") { Description = "Print the control plane's answer as JSON, and nothing else." };
    private readonly bool _isModels;

    private GalleryCommand(bool isModels) => _isModels = isModels;

    private string Prefix => _isModels ? "models" : "backends";

    private string One => _isModels ? "model" : "backend";

    /// <summary>Makes <c>modelhost models</c>.</summary>
    public static Command Models() => new GalleryCommand(isModels: true).Make();

    /// <summary>Makes <c>modelhost backends</c>.</summary>
    public static Command Backends() => new GalleryCommand(isModels: false).Make();

    private Command Make()
    {
        Option<string[]> Nodes(string otherwise) => new("--node") { Description = $"Id or name of a node, once for each. {otherwise}", HelpName = "NODE", AllowMultipleArgumentsPerToken = true };

        var nodes = Nodes(_isModels ? "Needed where there are several." : "Default: all that it has a build for.");
        var installed = new Option<bool>("--installed") { Description = "Only what is installed." };
        var noWait = new Option<bool>("--no-wait") { Description = "Do not wait for the end; print the job's address." };

        var list = new Command("list", $"List the {Prefix} that can be installed, and mark those that are.");
        Add(list, installed);
        list.SetAction((parsed, _) => _server.RunAsync(parsed, (client, cancellationToken) => ListAsync(client, parsed.GetValue(installed), parsed.GetValue(_json), cancellationToken)));

        var id = new Argument<string>("id") { Description = $"The {One}: NAME or GALLERY@NAME." };
        var name = new Option<string?>("--name") { Description = "Name to install and serve it as. Default: its own.", HelpName = "NAME" };
        var force = new Option<bool>("--force") { Description = "Install it anew where it is already." };
        var install = new Command("install", $"Install a {One} and wait until it is there.") { id };
        Add(install, nodes, noWait, _isModels ? name : force);
        install.SetAction((parsed, _) => _server.RunAsync(parsed, (client, cancellationToken) => JobAsync(client, parsed, parsed.GetValue(noWait), $"{Prefix}/apply",
            Body(("id", parsed.GetValue(id)!), ("nodes", Many(parsed.GetValue(nodes))), _isModels ? ("name", parsed.GetValue(name)) : ("force", parsed.GetValue(force) ? true : null)), cancellationToken)));

        var installedName = new Argument<string>("name") { Description = $"The {One} as it is installed." };
        var remove = new Command("remove", $"Remove an installed {One}.") { installedName };
        var holders = Nodes("Default: all that have it.");
        var version = new Option<string?>("--version") { Description = "Of an image: remove this release or tag from the nodes, and nothing else.", HelpName = "VERSION" };
        Add(remove, noWait, _isModels ? null : holders, _isModels ? null : version);
        remove.SetAction((parsed, _) => _server.RunAsync(parsed, (client, cancellationToken) => JobAsync(client, parsed, parsed.GetValue(noWait),
            $"{Prefix}/delete/{Uri.EscapeDataString(parsed.GetValue(installedName)!)}{(_isModels ? "" : QueryString.Create((Many(parsed.GetValue(holders)) ?? []).Select(node => KeyValuePair.Create("nodes", (string?)node))
                .Concat(parsed.GetValue(version) is { } one ? [KeyValuePair.Create("version", (string?)one)] : [])))}",
            null, cancellationToken)));

        return new Command(Prefix, _isModels ? "Models: list, install, remove." : "Backends: list, install, remove.") { list, install, remove };
    }

    private void Add(Command command, params ReadOnlySpan<Option?> options)
    {
        foreach (var option in options)
        {
            if (option is not null)
                command.Options.Add(option);
        }
        command.Options.Add(_json);
        command.Options.Add(_server.Data);
        command.Options.Add(_server.Url);
    }

    private static string[]? Many(string[]? given) => given is { Length: > 0 } ? given : null;

    private static Dictionary<string, object> Body(params ReadOnlySpan<(string Name, object? Value)> fields)
    {
        var body = new Dictionary<string, object>();
        foreach (var (name, value) in fields)
        {
            if (value is not null)
                body[name] = value;
        }
        return body;
    }

    private async Task<int> ListAsync(ServerClient client, bool onlyInstalled, bool asJson, CancellationToken cancellationToken)
    {
        // what is installed may be offered by no gallery any more
        var answer = await client.GetAsync(onlyInstalled && !_isModels ? Prefix : $"{Prefix}/available", cancellationToken);
        var galleries = onlyInstalled ? default : await client.GetAsync($"{Prefix}/galleries", cancellationToken);
        var rows = answer.EnumerateArray().Where(row => !onlyInstalled || !_isModels || IsInstalled(row)).ToArray();
        if (asJson)
        {
            await Console.Out.WriteLineAsync(Json(rows));
            return 0;
        }
        var lines = Array.ConvertAll(rows, row => onlyInstalled && !_isModels
            ? (Mark: "*", Name: Text(row, "Name"), Text: Text(row.GetProperty("Metadata"), "version")) : (Mark: IsInstalled(row) ? "*" : " ", Name: Text(row, "name"), Text: Text(row, "description")));
        var width = lines.Length == 0 ? 0 : Math.Min(lines.Max(line => line.Name.Length), 60);
        foreach (var (mark, row, text) in lines)
            await Console.Out.WriteLineAsync($"{mark} {Clean(row).PadRight(width)}  {Short(Clean(text))}".TrimEnd());
        await Console.Error.WriteLineAsync(lines.Length == 0 ? $"No {Prefix}{(onlyInstalled ? " are installed." : " are offered.")}" : $"{lines.Length} {(lines.Length == 1 ? One : Prefix)}; * is installed.");
        // what is missing from the list, and why
        foreach (var gallery in galleries.ValueKind == JsonValueKind.Array ? galleries.EnumerateArray().ToArray() : [])
        {
            if (Text(gallery, "error") is { Length: > 0 } error)
                await Console.Error.WriteLineAsync($"The gallery {Clean(Text(gallery, "name"))} could not be read the last time: {Clean(error)}");
        }
        return 0;
    }

    private async Task<int> JobAsync(ServerClient client, ParseResult parsed, bool noWait, string path, object? body, CancellationToken cancellationToken)
    {
        var asJson = parsed.GetValue(_json);
        var answer = await client.PostAsync(path, body, cancellationToken);
        var job = Text(answer, _isModels ? "uuid" : "id");
        if (noWait)
        {
            await Console.Out.WriteLineAsync(asJson ? Json(answer) : Text(answer, _isModels ? "status" : "status_url"));
            return 0;
        }
        JsonElement status;
        try
        {
            status = await JobProgress.FollowAsync(client, $"{Prefix}/jobs/{job}", asJson ? null : Console.Error, Console.IsErrorRedirected, cancellationToken);
        }
        catch (OperationCanceledException)
        {
            return CommandLine.Refuse($"interrupted; the job goes on. modelhost jobs cancel {job} ends it.");
        }
        catch (ServerException e) when (e.IsUnreached)
        {
            return CommandLine.Refuse($"{client.Url} {e.Message} The job goes on when it does: GET {client.Url}{Prefix}/jobs/{job}");
        }
        if (asJson)
            await Console.Out.WriteLineAsync(Json(status));
        if (status.TryGetProperty("error", out var error))
            return CommandLine.Refuse(Clean(error.GetString() ?? "the job failed"));
        if (status.GetProperty("cancelled").GetBoolean())
            return CommandLine.Refuse("the job was cancelled");
        if (!asJson)
            await Console.Error.WriteLineAsync($"{Clean(Text(status, "gallery_element_name"))}: {Clean(Text(status, "message"))}");
        return 0;
    }

    private static bool IsInstalled(JsonElement row) => row.TryGetProperty("installed", out var installed) && installed.ValueKind == JsonValueKind.True;
}
