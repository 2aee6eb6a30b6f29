using System.Net.Http.Headers;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace ModelHost.Agent.Downloads;

/// <summary>
/// Leave to read from a registry, as it grants it on being asked (distribution's token authentication, or HTTP's basic one): to anybody, or to the
/// account that the node has there.
/// </summary>
/// <param name="repository">What is to be read.</param>
/// <param name="account">The account; null: none.</param>
internal sealed partial class RegistryLogin(string repository, RegistryAccount? account)
{
    private const int MaxTokenAnswer = 256 * 1024;
    private volatile string? _authorization;

    /// <summary>Gets something from it, with leave once it wants that; it may expire in the middle of a pull.</summary>
    public async Task<GuardedAnswer> GetAsync(GuardedHttp http, Uri url, IReadOnlyDictionary<string, string> headers, CancellationToken cancellationToken)
    {
        try
        {
            return await http.GetAsync(url, With(headers), cancellationToken);
        }
        catch (DownloadException e) when (e.Challenge is { } challenge && (account is not null || IsBearer(challenge)))
        {
            _authorization = IsBearer(challenge) ? "Bearer " + await TokenAsync(http, url, challenge.Parameter ?? "", cancellationToken) : For(url, url).Basic;
        }
        return await KnownAsync(url, () => http.GetAsync(url, With(headers), cancellationToken));
    }

    /// <summary>Whether an account may be told to whom a challenge names: over TLS alone, but for this machine.</summary>
    /// <param name="registry">Who challenges.</param>
    /// <param name="realm">Who is to be told.</param>
    internal static bool IsTold(Uri registry, Uri realm) => new[] { registry, realm }.All(url => url.Scheme == "https" || url.IsLoopback);

    private static bool IsBearer(AuthenticationHeaderValue challenge) => challenge.Scheme.Equals("Bearer", StringComparison.OrdinalIgnoreCase);

    private RegistryAccount For(Uri registry, Uri realm) => IsTold(registry, realm) ? account!
        : throw new DownloadException("access_denied", $"{GuardedHttp.Display(registry)} wants a login, and the one that the node has for it (Node:Registries) is not sent without TLS");

    /// <summary>Does what needs the account, and says so where it does not suffice.</summary>
    private async Task<T> KnownAsync<T>(Uri registry, Func<Task<T>> ask)
    {
        try
        {
            return await ask();
        }
        catch (DownloadException e) when (account is not null && e.Code == "access_denied")
        {
            throw new DownloadException("access_denied", $"{registry.Authority} does not let the login read {repository} that the node has for it (Node:Registries): {e.Message}", inner: e);
        }
    }

    private Dictionary<string, string> With(IReadOnlyDictionary<string, string> headers)
    {
        var all = new Dictionary<string, string>(headers);
        if (_authorization is { } authorization)
            all["Authorization"] = authorization;
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
        var headers = new Dictionary<string, string>();
        if (account is not null)
            headers["Authorization"] = For(registry, realm).Basic;
        var url = new UriBuilder(realm) { Query = realm.Query.Length > 1 ? $"{realm.Query[1..]}&{query}" : query }.Uri;
        var answer = await KnownAsync(registry, () => http.GetBytesAsync(url, headers, MaxTokenAnswer, cancellationToken));
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
