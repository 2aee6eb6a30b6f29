using System.CommandLine;
using System.Net;

namespace ModelHost.Cli;

/// <summary><c>modelhost token create</c>: asks the running control plane of this machine, with the key in its data folder.</summary>
internal static class TokenCommand
{
    /// <summary>Makes it.</summary>
    public static Command Make()
    {
        var node = new Option<string?>("--node") { Description = "The only node that may use it, by name. Default: any.", HelpName = "NAME" };
        var minutes = new Option<int>("--minutes") { Description = "Minutes until it expires.", HelpName = "MINUTES", DefaultValueFactory = _ => 60 };
        var server = new ServerOptions();
        var create = new Command("create", "Make a token with which one node can join, once, and print it.");
        foreach (var option in (Option[])[node, minutes, server.Data, server.Url])
            create.Options.Add(option);
        create.SetAction((parsed, _) => server.RunAsync(parsed, (client, cancellationToken) => CreateAsync(parsed.GetValue(node), parsed.GetValue(minutes), client, cancellationToken)));
        return new Command("token", "Tokens with which nodes join.") { create };
    }

    private static async Task<int> CreateAsync(string? node, int minutes, ServerClient client, CancellationToken cancellationToken)
    {
        try
        {
            var body = await client.PostAsync("/api/nodes/join-tokens", new { node_name = node, ttl_minutes = minutes }, cancellationToken);
            var token = body.GetProperty("token").GetString();
            Console.WriteLine(token);
            await Console.Error.WriteLineAsync(
                $"Valid once, until {body.GetProperty("expires_at").GetDateTimeOffset():u}. On the node:\n"
                + $"  modelhost node --join {Dns.GetHostName()}:{body.GetProperty("cluster_port").GetInt32()} --token {token}");
            return 0;
        }
        catch (ServerException e)
        {
            return CommandLine.Refuse($"no token was made by {client.Url}: it {e.Message}");
        }
    }
}
