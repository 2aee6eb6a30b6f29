using System.CommandLine;
using System.Net;
using System.Net.Http.Headers;
using System.Runtime.InteropServices;
using System.Text.Json;
using ModelHost.Hosting;

namespace ModelHost.Cli;

/// <summary>The options of commands that speak to a running control plane.</summary>
internal sealed class ServerOptions
{
    public Option<string?> Data { get; } = new("--data")
    {
        Description = $"The data folder of the control plane, for its admin key; {ClientEnvironment.KeyName} in the environment is a key itself. Default: ~/.local/share/modelhost",
        HelpName = "FOLDER",
    };

    public Option<string?> Url { get; } = new("--url")
    {
        Description = $"Where the control plane listens; also as {ClientEnvironment.UrlName} in the environment. Default: {ServeSettings.DefaultUrl}",
        HelpName = "URL",
    };

    public ServerOptions() => Url.Validators.Add(result =>
    {
        if (Fault(result.GetValueOrDefault<string?>()) is { } fault)
            result.AddError($"--url: {fault}");
    });

    /// <summary>Runs a command against the control plane that its command line, or the environment, names. Ctrl-C ends it.</summary>
    /// <returns>The exit code.</returns>
    public async Task<int> RunAsync(ParseResult parsed, Func<ServerClient, CancellationToken, Task<int>> run)
    {
        var environment = ClientEnvironment.Read();
        if (parsed.GetValue(Url) is null && Fault(environment.Url) is { } fault)
            return CommandLine.Refuse($"{ClientEnvironment.UrlName}: {fault}");
        using var client = new ServerClient(
            new Uri(parsed.GetValue(Url) ?? environment.Url ?? ServeSettings.DefaultUrl), new ServeSettings { Data = parsed.GetValue(Data) }.DataPath, environment.Key, parsed.GetValue(Data) is not null);
        using var interrupted = new CancellationTokenSource();
        void Interrupt(PosixSignalContext signal)
        {
            signal.Cancel = true;
            interrupted.Cancel();
        }

        using var ctrlC = PosixSignalRegistration.Create(PosixSignal.SIGINT, Interrupt);
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Interrupt);
        try
        {
            return await run(client, interrupted.Token);
        }
        catch (ServerException e)
        {
            return CommandLine.Refuse($"{client.Url} {e.Message}");
        }
        catch (OperationCanceledException)
        {
            return CommandLine.Refuse("interrupted");
        }
        catch (Exception e) when (e is InvalidOperationException or KeyNotFoundException or FormatException)
        {
            // what reading JSON throws that is another than was expected
            return CommandLine.Refuse($"{client.Url} answers something else than ModelHost would: it is none, or of another version. --url says where the control plane listens.");
        }
    }

    // an address is shown in messages: what stands in it before the host is not to be
    private static string? Fault(string? url) => url is null ? null
        : !Uri.TryCreate(url, UriKind.Absolute, out var address) || address.Scheme is not ("http" or "https") ? $"it is no address such as {ServeSettings.DefaultUrl}."
        : address.UserInfo.Length > 0 ? $"an address has no login in it; {ClientEnvironment.KeyName} in the environment is the key." : null;
}

/// <summary>The control plane refused, or cannot be asked; the message says so of it, for people.</summary>
internal sealed class ServerException(string message, bool isUnreached = false, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>Whether nothing answered: it may be starting again.</summary>
    public bool IsUnreached => isUnreached;
}

/// <summary>Speaks to a running control plane, with the key of the environment, or the one in its data folder if there is one.</summary>
internal sealed class ServerClient : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(100);
    private readonly HttpClient _http;
    private readonly string _keyFile;
    private readonly string? _key;

    /// <summary>Makes one.</summary>
    /// <param name="url">Where it listens.</param>
    /// <param name="dataFolder">The folder that may hold its admin key.</param>
    /// <param name="key">The key of the environment; null: there is none.</param>
    /// <param name="isFolderNamed">Whether the folder was named on the command line: the key in it goes before that of the environment then.</param>
    public ServerClient(Uri url, string dataFolder, string? key = null, bool isFolderNamed = false)
    {
        Url = url;
        _keyFile = Path.Combine(dataFolder, "admin-key");
        _key = isFolderNamed && File.Exists(_keyFile) ? null : key;
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
                throw new ServerException($"does not take {(request.Headers.Authorization is null ? $"a request without a key, and there is none in {_keyFile}" : $"the key in {(_key is null ? _keyFile : ClientEnvironment.KeyName)}")}. --data names the data folder with its admin key{(_key is null ? "" : ", which goes before it")}.");
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
        if (_key is not null)
            return _key.All(c => c is > ' ' and < (char)127) ? _key : throw new ServerException($"was not asked, because what {ClientEnvironment.KeyName} holds is no key");
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
