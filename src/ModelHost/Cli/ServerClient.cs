using System.CommandLine;
using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;
using ModelHost.Hosting;

namespace ModelHost.Cli;

/// <summary>The options of commands that speak to a running control plane.</summary>
internal sealed class ServerOptions
{
    public Option<string?> Data { get; } = new("--data")
    {
        Description = "The data folder of the control plane, for its admin key. Default: ~/.local/share/modelhost",
        HelpName = "FOLDER",
    };

    public Option<string> Url { get; } = new("--url")
    {
        Description = "Where the control plane listens.",
        HelpName = "URL",
        DefaultValueFactory = _ => ServeSettings.DefaultUrl,
    };

    public ServerOptions() => Url.Validators.Add(result =>
    {
        if (!(Uri.TryCreate(result.GetValueOrDefault<string>(), UriKind.Absolute, out var address) && address.Scheme is "http" or "https"))
            result.AddError($"--url: '{result.GetValueOrDefault<string>()}' is no address such as {ServeSettings.DefaultUrl}.");
    });

    /// <summary>A client of the control plane that a command line names.</summary>
    public ServerClient Client(ParseResult parsed) => new(new Uri(parsed.GetValue(Url)!), new ServeSettings { Data = parsed.GetValue(Data) }.DataPath);
}

/// <summary>The control plane refused, or cannot be asked; the message says so of it, for people.</summary>
internal sealed class ServerException(string message, bool isUnreached = false, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>Whether nothing answered: it may be starting again.</summary>
    public bool IsUnreached => isUnreached;
}

/// <summary>Speaks to a running control plane, with the key in its data folder if there is one.</summary>
internal sealed class ServerClient : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(100);
    private readonly HttpClient _http;
    private readonly string _keyFile;

    public ServerClient(Uri url, string dataFolder)
    {
        Url = url;
        _keyFile = Path.Combine(dataFolder, "admin-key");
        // below a path base too
        _http = new HttpClient(new SocketsHttpHandler { UseProxy = false }) { BaseAddress = new Uri(url.AbsoluteUri.TrimEnd('/') + "/"), Timeout = Limit };
    }

    /// <summary>Where it listens.</summary>
    public Uri Url { get; }

    /// <summary>Gets.</summary>
    /// <exception cref="ServerException">It is refused, or cannot be asked.</exception>
    public Task<JsonElement> GetAsync(string path, CancellationToken cancellationToken) => SendAsync(HttpMethod.Get, path, null, cancellationToken);

    /// <summary>Posts.</summary>
    /// <exception cref="ServerException">It is refused, or cannot be asked.</exception>
    public Task<JsonElement> PostAsync(string path, object? body, CancellationToken cancellationToken) => SendAsync(HttpMethod.Post, path, body, cancellationToken);

    public void Dispose() => _http.Dispose();

    private async Task<JsonElement> SendAsync(HttpMethod method, string path, object? body, CancellationToken cancellationToken)
    {
        try
        {
            using var request = new HttpRequestMessage(method, path.TrimStart('/')) { Content = body is null ? null : JsonContent.Create(body) };
            if (await KeyAsync(cancellationToken) is { } key)
                request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", key);
            using var answer = await _http.SendAsync(request, cancellationToken);
            var text = await answer.Content.ReadAsStringAsync(cancellationToken);
            if (answer.StatusCode == HttpStatusCode.Unauthorized)
                throw new ServerException($"does not take {(request.Headers.Authorization is null ? $"a request without a key, and there is none in {_keyFile}" : $"the key in {_keyFile}")}. --data names the data folder with its admin key.");
            var json = text.Length == 0 ? default : JsonSerializer.Deserialize<JsonElement>(text);
            return answer.IsSuccessStatusCode ? json : throw new ServerException($"refused: {Reason(json) ?? $"status {(int)answer.StatusCode}"}");
        }
        catch (JsonException e)
        {
            throw new ServerException("is no ModelHost: what it answers is not JSON. --url says where the control plane listens.", inner: e);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested && e is HttpRequestException or TaskCanceledException or IOException)
        {
            throw new ServerException($"does not answer: {e.GetBaseException().Message}. Is modelhost serve running? --url says where it listens.", isUnreached: true, e);
        }
    }

    private async Task<string?> KeyAsync(CancellationToken cancellationToken)
    {
        try
        {
            return File.Exists(_keyFile) ? (await File.ReadAllTextAsync(_keyFile, cancellationToken)).Trim() : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ServerException($"was not asked, because the key cannot be read: {e.Message}", inner: e);
        }
    }

    // a problem, LocalAI's error, or its plain text
    private static string? Reason(JsonElement json)
    {
        if (json.ValueKind != JsonValueKind.Object)
            return null;
        if (json.TryGetProperty("detail", out var detail) && detail.ValueKind == JsonValueKind.String)
            return detail.GetString();
        return !json.TryGetProperty("error", out var error) ? null
            : error.ValueKind == JsonValueKind.String ? error.GetString()
            : error.ValueKind == JsonValueKind.Object && error.TryGetProperty("message", out var message) ? message.GetString() : null;
    }
}
