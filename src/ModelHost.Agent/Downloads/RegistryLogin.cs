using System.Text.Json;
using System.Text.RegularExpressions;

namespace ModelHost.Agent.Downloads;

/// <summary>Leave to read from a registry without an account, as it grants it on being asked (distribution's token authentication).</summary>
/// <param name="repository">What is to be read.</param>
internal sealed partial class RegistryLogin(string repository)
{
    private const int MaxTokenAnswer = 256 * 1024;
    private volatile string? _token;

    /// <summary>Gets something from it, with a token once it wants one; it may expire in the middle of a pull.</summary>
    public async Task<GuardedAnswer> GetAsync(GuardedHttp http, Uri url, IReadOnlyDictionary<string, string> headers, CancellationToken cancellationToken)
    {
        try
        {
            return await http.GetAsync(url, With(headers), cancellationToken);
        }
        catch (DownloadException e) when (e.Challenge is not null)
        {
            _token = await TokenAsync(http, url, e.Challenge, cancellationToken);
            return await http.GetAsync(url, With(headers), cancellationToken);
        }
    }

    private Dictionary<string, string> With(IReadOnlyDictionary<string, string> headers)
    {
        var all = new Dictionary<string, string>(headers);
        if (_token is { } token)
            all["Authorization"] = "Bearer " + token;
        return all;
    }

    private async Task<string> TokenAsync(GuardedHttp http, Uri registry, string challenge, CancellationToken cancellationToken)
    {
        var fields = Field().Matches(challenge).ToLookup(match => match.Groups["name"].Value, match => match.Groups["value"].Value, StringComparer.OrdinalIgnoreCase);
        // the scope is ours: one that the registry names may be of something else
        if (!Uri.TryCreate(fields["realm"].FirstOrDefault(), UriKind.Absolute, out var realm) || realm.Scheme is not ("https" or "http")
            || (registry.Scheme == "https" && realm.Scheme == "http"))
            throw new DownloadException("access_denied", $"{GuardedHttp.Display(registry)} wants a login that is not to be had");
        var query = $"scope={Uri.EscapeDataString($"repository:{repository}:pull")}"
            + (fields["service"].FirstOrDefault() is { Length: > 0 } service ? $"&service={Uri.EscapeDataString(service)}" : "");
        var url = new UriBuilder(realm) { Query = realm.Query.Length > 1 ? $"{realm.Query[1..]}&{query}" : query }.Uri;
        var answer = await http.GetBytesAsync(url, new Dictionary<string, string>(), MaxTokenAnswer, cancellationToken);
        try
        {
            using var document = JsonDocument.Parse(answer);
            foreach (var name in (string[])["token", "access_token"])
            {
                if (document.RootElement.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String
                    && value.GetString() is { Length: > 0 } token && token.All(c => c is > ' ' and < (char)127))
                    return token;
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new DownloadException("answer_invalid", $"{GuardedHttp.Display(url)} does not answer with JSON", inner: e);
        }
        throw new DownloadException("access_denied", $"{GuardedHttp.Display(url)} gives no token");
    }

    [GeneratedRegex("""(?<name>[A-Za-z_]{1,32})="(?<value>[^"]{0,2048})"(?:,|\s|$)""")]
    private static partial Regex Field();
}
