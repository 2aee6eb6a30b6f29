using System.Net;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using ModelHost.Hosting;

namespace ModelHost.Cluster;

/// <summary>The control plane refused something, or is not the one that is wanted; trying again does not help.</summary>
internal sealed class ClusterException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>
/// What a node has of its cluster: the authority that it trusts, its own certificate and key, and where the control plane is. Kept in
/// <c>membership.json</c> of its data folder, which only its owner can read.
/// </summary>
internal sealed class Membership : IDisposable
{
    private const string File = "membership.json";
    private const long LargestAnswer = 64 * 1024;
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(10);
    private static readonly JsonSerializerOptions s_json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower, WriteIndented = true };

    private readonly DataFolder _folder;
    private readonly TimeProvider _time;
    private readonly SemaphoreSlim _one = new(1);
    private Stored _stored;
    private volatile HttpClient _http;
    private volatile X509Certificate2 _certificate;

    private Membership(DataFolder folder, Stored stored, TimeProvider time)
    {
        (_folder, _stored, _time) = (folder, stored, time);
        Trust = new ClusterTrust(X509Certificate2.CreateFromPem(stored.Authority), stored.ClusterId, time);
        _certificate = X509Certificate2.CreateFromPem(stored.Certificate, stored.Key);
        _http = Client(stored.ControlPlane, Trust, () => _certificate);
    }

    /// <summary>The id of the cluster.</summary>
    public string ClusterId => _stored.ClusterId;

    /// <summary>Where the control plane takes nodes.</summary>
    public string ControlPlane => _stored.ControlPlane;

    /// <summary>The node's own certificate, with its key.</summary>
    public X509Certificate2 Certificate => _certificate;

    /// <summary>Decides whom the node obeys.</summary>
    public ClusterTrust Trust { get; }

    /// <summary>Opens the membership of a data folder.</summary>
    /// <returns>Null: the node is a member of no cluster.</returns>
    /// <exception cref="ClusterException">The file is damaged.</exception>
    public static Membership? Open(DataFolder folder, TimeProvider time)
    {
        if (folder.Read(File) is not { } text)
            return null;
        try
        {
            return new Membership(folder, JsonSerializer.Deserialize<Stored>(text, s_json)!, time);
        }
        catch (Exception e) when (e is JsonException or CryptographicException)
        {
            throw new ClusterException($"{folder.File(File)} is damaged: {e.Message} Remove it and join anew, with --join and --token.", e);
        }
    }

    /// <summary>Joins a cluster. The token goes to nobody who cannot prove to be the control plane that made it.</summary>
    /// <param name="folder">The node's data folder.</param>
    /// <param name="time">The clock.</param>
    /// <param name="controlPlane">Host and port.</param>
    /// <param name="token">From the control plane.</param>
    /// <param name="name">What the node calls itself.</param>
    /// <param name="before">What it was a member of; its key shows that it is the same node. Null: of nothing.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ClusterException">It was refused, with the reason.</exception>
    /// <exception cref="HttpRequestException">The control plane does not answer.</exception>
    public static async Task<Membership> JoinAsync(
        DataFolder folder, TimeProvider time, string controlPlane, string token, string name, Membership? before, CancellationToken cancellationToken)
    {
        var ticket = JoinTicket.Parse(token) ?? throw new ClusterException("the token is none; it begins with mh_join_ and comes whole from 'modelhost token create'");
        var pem = await AuthorityAsync(controlPlane, cancellationToken);
        using var authority = ReadCertificate(pem);
        if (!CryptographicOperations.FixedTimeEquals(SHA256.HashData(authority.RawData), ticket.Authority))
            throw new ClusterException($"{controlPlane} is not the control plane that made the token: its certificate authority is another");
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        if (before is not null)
            key.ImportFromPem(before._stored.Key);
        // the cluster's id is not known yet: the authority, which the token pins, is what counts, and of it any control plane
        using var http = Client(controlPlane, AnyClusterOf(authority, time), () => null);
        var request = new JoinRequest { Secret = ticket.Secret, NodeId = folder.NodeId, Name = name, SigningRequest = SigningRequest(key) };
        var answer = await AskAsync(http, "/cluster/join", request, ClusterJson.Default.JoinRequest, ClusterJson.Default.MemberAnswer, cancellationToken);
        var stored = new Stored(controlPlane, answer.ClusterId, authority.ExportCertificatePem(), answer.Certificate, key.ExportPkcs8PrivateKeyPem(), JoinTicket.Hash(ticket.Secret));
        var membership = new Membership(folder, stored, time);
        membership.CheckOwn(membership.Certificate);
        folder.WriteSecret(File, JsonSerializer.Serialize(stored, s_json));
        return membership;
    }

    /// <summary>Whether the node became a member by this token.</summary>
    public bool IsBy(string token) => JoinTicket.Parse(token) is { } ticket && JoinTicket.Hash(ticket.Secret) == _stored.TokenHash;

    /// <summary>Whether it is time for another certificate.</summary>
    public bool IsRenewalDue() => ClusterAuthority.IsDue(_certificate, _time.GetUtcNow());

    /// <summary>Gets another certificate, with another key.</summary>
    /// <inheritdoc cref="JoinAsync"/>
    public async Task RenewAsync(CancellationToken cancellationToken)
    {
        await _one.WaitAsync(cancellationToken);
        try
        {
            await RenewCoreAsync(cancellationToken);
        }
        finally
        {
            _one.Release();
        }
    }

    private async Task RenewCoreAsync(CancellationToken cancellationToken)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new RenewRequest { SigningRequest = SigningRequest(key) };
        var answer = await AskAsync(_http, "/cluster/renew", request, ClusterJson.Default.RenewRequest, ClusterJson.Default.MemberAnswer, cancellationToken);
        var stored = _stored with { Certificate = answer.Certificate, Key = key.ExportPkcs8PrivateKeyPem() };
        var certificate = X509Certificate2.CreateFromPem(stored.Certificate, stored.Key);
        CheckOwn(certificate);
        _folder.WriteSecret(File, JsonSerializer.Serialize(stored, s_json));
        (_stored, _certificate) = (stored, certificate);
        var before = _http;
        _http = Client(stored.ControlPlane, Trust, () => _certificate);
        before.Dispose(); // its connections show the old one
    }

    /// <summary>Says that the node is there.</summary>
    /// <inheritdoc cref="JoinAsync"/>
    public Task<HeartbeatAnswer> BeatAsync(HeartbeatRequest request, CancellationToken cancellationToken) =>
        AskAsync(_http, "/cluster/heartbeat", request, ClusterJson.Default.HeartbeatRequest, ClusterJson.Default.HeartbeatAnswer, cancellationToken);

    public void Dispose()
    {
        _http.Dispose();
        _one.Dispose();
    }

    private void CheckOwn(X509Certificate2 certificate)
    {
        if (Trust.Check(certificate, ClusterRole.Node, out var name) is { } fault || name.NodeId != _folder.NodeId)
            throw new ClusterException($"the control plane answered with a certificate that does not serve: {Trust.Check(certificate, ClusterRole.Node, out _) ?? "it is that of another node"}");
    }

    private static string SigningRequest(ECDsa key) => new CertificateRequest("CN=modelhost", key, HashAlgorithmName.SHA256).CreateSigningRequestPem();

    /// <summary>The authority's certificate from whoever answers; what it is worth is for the token to say.</summary>
    private static async Task<string> AuthorityAsync(string controlPlane, CancellationToken cancellationToken)
    {
        using var http = Client(controlPlane, static _ => true, () => null);
        using var answer = await http.GetAsync(new Uri("/cluster/ca", UriKind.Relative), cancellationToken);
        return answer.IsSuccessStatusCode ? await answer.Content.ReadAsStringAsync(cancellationToken)
            : throw new ClusterException($"{controlPlane} is no cluster listener: it answered {(int)answer.StatusCode}");
    }

    private static X509Certificate2 ReadCertificate(string pem)
    {
        try
        {
            return X509Certificate2.CreateFromPem(pem);
        }
        catch (CryptographicException e)
        {
            throw new ClusterException("what answers there is no cluster listener: it has no certificate authority", e);
        }
    }

    private static Predicate<X509Certificate?> AnyClusterOf(X509Certificate2 authority, TimeProvider time) => shown =>
        shown is X509Certificate2 certificate && ClusterName.Read(certificate) is { } told
        && new ClusterTrust(authority, told.ClusterId, time).Check(certificate, ClusterRole.ControlPlane, out _) is null;

    private static HttpClient Client(string controlPlane, ClusterTrust trust, Func<X509Certificate2?> own) =>
        Client(controlPlane, shown => trust.Check(shown, ClusterRole.ControlPlane, out _) is null, own);

    private static HttpClient Client(string controlPlane, Predicate<X509Certificate?> trusts, Func<X509Certificate2?> own)
    {
        var tls = new SslClientAuthenticationOptions
        {
            CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
            RemoteCertificateValidationCallback = (_, certificate, _, _) => trusts(certificate),
            LocalCertificateSelectionCallback = (_, _, _, _, _) => own()!,
            AllowTlsResume = false,
        };
        var handler = new SocketsHttpHandler { UseProxy = false, AllowAutoRedirect = false, UseCookies = false, ConnectTimeout = Limit, SslOptions = tls };
        return new HttpClient(handler) { BaseAddress = new Uri($"https://{controlPlane}"), Timeout = Limit, MaxResponseContentBufferSize = LargestAnswer };
    }

    private static async Task<TAnswer> AskAsync<TRequest, TAnswer>(
        HttpClient http, string path, TRequest request, JsonTypeInfo<TRequest> requests, JsonTypeInfo<TAnswer> answers, CancellationToken cancellationToken)
    {
        try
        {
            using var answer = await http.PostAsJsonAsync(new Uri(path, UriKind.Relative), request, requests, cancellationToken);
            if (answer.IsSuccessStatusCode)
                return await answer.Content.ReadFromJsonAsync(answers, cancellationToken) ?? throw new JsonException("null");
            if (answer.StatusCode >= HttpStatusCode.InternalServerError)
                throw new HttpRequestException($"the control plane answered {(int)answer.StatusCode}");
            var refusal = await answer.Content.ReadFromJsonAsync(ClusterJson.Default.ClusterRefusal, cancellationToken);
            throw new ClusterException($"{refusal?.Detail} ({refusal?.Code})");
        }
        catch (JsonException e)
        {
            throw new HttpRequestException("the control plane's answer cannot be read", e);
        }
        catch (TaskCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw new HttpRequestException($"no answer within {Limit.TotalSeconds:0} s", e);
        }
    }

    private sealed record Stored(string ControlPlane, string ClusterId, string Authority, string Certificate, string Key, string? TokenHash = null);
}
