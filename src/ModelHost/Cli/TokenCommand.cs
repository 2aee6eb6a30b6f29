using System.CommandLine;
using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;
using ModelHost.Hosting;

namespace ModelHost.Cli;

/// <summary><c>modelhost token create</c>: asks the running control plane of this machine, with the key in its data folder.</summary>
internal static class TokenCommand
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    /// <summary>Makes it.</summary>
    public static Command Make()
    {
        var node = new Option<string?>("--node") { Description = "The only node that may use it, by name. Default: any.", HelpName = "NAME" };
        var minutes = new Option<int>("--minutes") { Description = "Minutes until it expires. Default: 60", HelpName = "MINUTES", DefaultValueFactory = _ => 60 };
        var data = new Option<string?>("--data") { Description = "The data folder of the control plane, for its admin key. Default: ~/.local/share/modelhost", HelpName = "FOLDER" };
        var url = new Option<string>("--url") { Description = $"Where the control plane listens. Default: {ServeSettings.DefaultUrl}", HelpName = "URL", DefaultValueFactory = _ => ServeSettings.DefaultUrl };
        var create = new Command("create", "Make a token with which one node can join, once, and print it.");
        foreach (var option in (Option[])[node, minutes, data, url])
            create.Options.Add(option);
        url.Validators.Add(result =>
        {
            if (!(Uri.TryCreate(result.GetValueOrDefault<string>(), UriKind.Absolute, out var address) && address.Scheme is "http" or "https"))
                result.AddError($"--url: '{result.GetValueOrDefault<string>()}' is no address such as {ServeSettings.DefaultUrl}.");
        });
        create.SetAction((parsed, cancellationToken) => CreateAsync(
            parsed.GetValue(node), parsed.GetValue(minutes), new ServeSettings { Data = parsed.GetValue(data) }.DataPath, new Uri(parsed.GetValue(url)!), cancellationToken));
        return new Command("token", "Tokens with which nodes join.") { create };
    }

    private static async Task<int> CreateAsync(string? node, int minutes, string data, Uri url, CancellationToken cancellationToken)
    {
        var key = Path.Combine(data, "admin-key");
        using var http = new HttpClient(new SocketsHttpHandler { UseProxy = false }) { BaseAddress = url, Timeout = Limit };
        try
        {
            if (File.Exists(key))
                http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", (await File.ReadAllTextAsync(key, cancellationToken)).Trim());
            using var answer = await http.PostAsJsonAsync("/api/nodes/join-tokens", new { node_name = node, ttl_minutes = minutes }, cancellationToken);
            var body = await answer.Content.ReadFromJsonAsync<JsonElement>(cancellationToken);
            if (!answer.IsSuccessStatusCode)
                return CommandLine.Refuse($"{url} refused: {(body.TryGetProperty("detail", out var detail) ? detail.GetString() : $"{(int)answer.StatusCode}")}");
            var token = body.GetProperty("token").GetString();
            Console.WriteLine(token);
            await Console.Error.WriteLineAsync(
                $"Valid once, until {body.GetProperty("expires_at").GetDateTimeOffset():u}. On the node:\n"
                + $"  modelhost node --join {Dns.GetHostName()}:{body.GetProperty("cluster_port").GetInt32()} --token {token}");
            return 0;
        }
        catch (Exception e) when (e is HttpRequestException or TaskCanceledException or JsonException or IOException or UnauthorizedAccessException)
        {
            return CommandLine.Refuse($"no token was made by {url} with the key in {key}: {e.GetBaseException().Message}");
        }
    }
}
