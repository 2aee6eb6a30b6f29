using System.Globalization;
using System.Net;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Extensions.Options;

namespace ModelHost.Cluster.Discovery;

/// <summary>Consul did not answer, or not with what it documents.</summary>
internal sealed class ConsulException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>An instance of the service in Consul's catalogue, as whoever registered it said.</summary>
/// <param name="Node">Consul's name for the machine.</param>
/// <param name="ServiceId">Consul's id of the instance, of which a machine has no other.</param>
/// <param name="Address">Host name or address.</param>
/// <param name="Port">As it stands there; it may be none.</param>
internal sealed record ConsulService(string Node, string ServiceId, string Address, int Port);

/// <summary>What stands in the catalogue.</summary>
/// <param name="Index">Told again, it makes the next question wait for a change; null: Consul told none.</param>
/// <param name="Services">The instances.</param>
/// <param name="IsFiltered">Whether Consul left out what the token does not allow to see.</param>
internal sealed record ConsulAnswer(ulong? Index, IReadOnlyList<ConsulService> Services, bool IsFiltered);

/// <summary>Reads the instances of one service by Consul's HTTP API: <c>/v1/catalog/service/NAME</c>, with its blocking queries.</summary>
internal sealed class ConsulCatalogue : IDisposable
{
    // some hundred bytes an instance
    private const int LargestAnswer = 4 * 1024 * 1024, MostServices = 2000, LongestText = 255;
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(10);

    private readonly ConsulOptions _options;
    private readonly TimeProvider _time;
    private readonly Lazy<HttpClient> _http;

    public ConsulCatalogue(IOptions<ConsulOptions> options, TimeProvider time)
    {
        (_options, _time) = (options.Value, time);
        // a file that could not be read is read again with the next question
        _http = new(Client, LazyThreadSafetyMode.PublicationOnly);
    }

    /// <summary>Asks for all instances.</summary>
    /// <param name="index">Of the last answer: Consul answers when there is a newer one, or after its time. 0: at once.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ConsulException">It does not answer in time, or not as it should.</exception>
    public async Task<ConsulAnswer> ReadAsync(ulong index, CancellationToken cancellationToken)
    {
        // Consul adds up to a sixteenth itself
        using var limit = new CancellationTokenSource(index == 0 ? Limit : Limit + (_options.Wait * 17 / 16), _time);
        using var both = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, limit.Token);
        try
        {
            using var answer = await _http.Value.GetAsync(Question(index), both.Token);
            if (!answer.IsSuccessStatusCode)
            {
                throw new ConsulException(answer.StatusCode is HttpStatusCode.Forbidden or HttpStatusCode.Unauthorized
                    ? $"it answered {(int)answer.StatusCode}: the token (Discovery:Consul:Token) has to allow service:read and node:read"
                    : $"it answered {(int)answer.StatusCode}");
            }
            return new ConsulAnswer(Index(answer), Read(await answer.Content.ReadAsByteArrayAsync(both.Token)), Header(answer, "X-Consul-Results-Filtered-By-ACLs") == "true");
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw new ConsulException("it did not answer in time", e);
        }
        catch (HttpRequestException e)
        {
            throw new ConsulException(
                e.HttpRequestError == HttpRequestError.ConfigurationLimitExceeded ? "its answer is larger than 4 MiB" : e.GetBaseException().Message, e);
        }
        catch (JsonException e)
        {
            throw new ConsulException("its answer is no list of services", e);
        }
    }

    public void Dispose()
    {
        if (_http.IsValueCreated)
            _http.Value.Dispose();
    }

    private Uri Question(ulong index)
    {
        var path = $"/v1/catalog/service/{Uri.EscapeDataString(_options.Service)}";
        string[] query =
        [
            .. _options.Datacenter.Length > 0 ? [$"dc={Uri.EscapeDataString(_options.Datacenter)}"] : (string[])[],
            .. index > 0 ? [string.Create(CultureInfo.InvariantCulture, $"index={index}"), string.Create(CultureInfo.InvariantCulture, $"wait={(int)_options.Wait.TotalSeconds}s")] : (string[])[],
        ];
        return new Uri(query.Length > 0 ? $"{path}?{string.Join('&', query)}" : path, UriKind.Relative);
    }

    private static ulong? Index(HttpResponseMessage answer) =>
        ulong.TryParse(Header(answer, "X-Consul-Index"), NumberStyles.None, CultureInfo.InvariantCulture, out var index) ? index : null;

    private static string? Header(HttpResponseMessage answer, string name) => answer.Headers.TryGetValues(name, out var values) ? values.FirstOrDefault() : null;

    private static List<ConsulService> Read(byte[] json)
    {
        var entries = JsonSerializer.Deserialize(json, ConsulJson.Default.EntryArray) ?? throw new JsonException("null");
        // the address of the service, where it has one, else that of its machine
        return [.. entries.OfType<Entry>().Take(MostServices)
            .Select(entry => new ConsulService(Text(entry.Node), Text(entry.ServiceID), Text(entry.ServiceAddress is { Length: > 0 } own ? own : entry.Address), entry.ServicePort))
            .DistinctBy(service => (service.Node, service.ServiceId))];
    }

    // it is shown to people
    private static string Text(string? text) => string.Concat((text ?? "").Where(c => !char.IsControl(c)).Take(LongestText));

    private HttpClient Client()
    {
        var handler = new SocketsHttpHandler { UseProxy = false, AllowAutoRedirect = false, UseCookies = false, ConnectTimeout = Limit };
        if (_options.CaFile.Length > 0)
            handler.SslOptions.RemoteCertificateValidationCallback = Trusts(_options.CaFile);
        var http = new HttpClient(handler) { BaseAddress = new Uri(_options.Address), Timeout = Timeout.InfiniteTimeSpan, MaxResponseContentBufferSize = LargestAnswer };
        if (_options.Token.Length > 0)
            http.DefaultRequestHeaders.Add("X-Consul-Token", _options.Token);
        return http;
    }

    private static RemoteCertificateValidationCallback Trusts(string file)
    {
        var authorities = new X509Certificate2Collection();
        try
        {
            authorities.ImportFromPemFile(file);
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw new ConsulException($"the certificate authority {file} (Discovery:Consul:CaFile) cannot be read: {e.Message}", e);
        }
        return (_, shown, _, errors) =>
        {
            if (shown is not X509Certificate2 certificate || (errors & ~SslPolicyErrors.RemoteCertificateChainErrors) != SslPolicyErrors.None)
                return false;
            using var chain = new X509Chain();
            chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
            chain.ChainPolicy.CustomTrustStore.AddRange(authorities);
            chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck; // Consul's own authority publishes no lists
            return chain.Build(certificate);
        };
    }

    /// <summary>What of an entry is read; its names are Consul's.</summary>
    internal sealed record Entry(string? Node, string? Address, string? ServiceID, string? ServiceAddress, int ServicePort);
}

/// <summary>How Consul writes.</summary>
[JsonSerializable(typeof(ConsulCatalogue.Entry[]))]
internal sealed partial class ConsulJson : JsonSerializerContext;
