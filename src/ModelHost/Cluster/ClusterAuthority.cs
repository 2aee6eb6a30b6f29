using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using ModelHost.Hosting;

namespace ModelHost.Cluster;

/// <summary>
/// The certificate authority of the cluster, in <c>ca/</c> of the data folder: made when it is first needed, and never again. It signs short-lived
/// certificates for the members and for this control plane.
/// </summary>
internal sealed class ClusterAuthority
{
    /// <summary>How long a certificate of a member is valid.</summary>
    public static readonly TimeSpan Lifetime = TimeSpan.FromHours(24);

    // clocks differ
    private static readonly TimeSpan Skew = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan OwnLifetime = TimeSpan.FromDays(20 * 365);
    private static readonly HashAlgorithmName s_hash = HashAlgorithmName.SHA256;
    private static readonly OidCollection s_uses = [new("1.3.6.1.5.5.7.3.1"), new("1.3.6.1.5.5.7.3.2")]; // server and client
    private const string KeyFile = "ca/ca.key", CertificateFile = "ca/ca.crt";
    private const int LargestRequest = 8 * 1024;

    private readonly string _clusterId;
    private readonly TimeProvider _time;
    private readonly X509Certificate2 _signer;
    private readonly Lock _lock = new();
    private readonly ClusterName _own;
    private X509Certificate2? _current;

    /// <summary>Opens the authority of a data folder, or makes it.</summary>
    public ClusterAuthority(DataFolder folder, TimeProvider time)
    {
        (_clusterId, _time) = (folder.ClusterId, time);
        _own = new ClusterName(folder.ClusterId, ClusterRole.ControlPlane, folder.NodeId);
        folder.PrivateFolder("ca");
        // the certificate is written last: without it nothing was ever signed
        if (folder.Read(CertificateFile) is not { Length: > 0 } || folder.Read(KeyFile) is not { Length: > 0 })
            Make(folder);
        _signer = X509Certificate2.CreateFromPem(folder.Read(CertificateFile), folder.Read(KeyFile));
        Certificate = X509CertificateLoader.LoadCertificate(_signer.RawData);
        Trust = new ClusterTrust(Certificate, folder.ClusterId, time);
    }

    /// <summary>Its own certificate, without the key.</summary>
    public X509Certificate2 Certificate { get; }

    /// <summary>Decides who is a member.</summary>
    public ClusterTrust Trust { get; }

    /// <summary>SHA-256 of its certificate, by which joining nodes know it.</summary>
    public byte[] Fingerprint => SHA256.HashData(Certificate.RawData);

    /// <summary>Whether a data folder has one.</summary>
    public static bool IsMade(DataFolder folder) => folder.Read(CertificateFile) is { Length: > 0 };

    /// <summary>The certificate of this control plane, with its key, which exists in memory alone; another when two thirds of its life are over.</summary>
    public X509Certificate2 ControlPlane()
    {
        lock (_lock)
        {
            if (_current is null || IsDue(_current, _time.GetUtcNow()))
            {
                using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
                using var signed = Sign(new PublicKey(key), _own);
                _current = signed.CopyWithPrivateKey(key);
            }
            return _current;
        }
    }

    /// <summary>Whether two thirds of a certificate's life are over.</summary>
    public static bool IsDue(X509Certificate2 certificate, DateTimeOffset now)
    {
        var (from, to) = (new DateTimeOffset(certificate.NotBefore), new DateTimeOffset(certificate.NotAfter));
        return now >= from + ((to - from) * 2 / 3) || now < from;
    }

    /// <summary>Signs a certificate for a node. Of the request only the key counts, and that its sender holds it.</summary>
    /// <returns>The certificate, and SHA-256 of its key; null: the request is none, or its key is of another kind.</returns>
    public (X509Certificate2 Certificate, string KeyHash)? SignNode(string request, string nodeId)
    {
        if (request.Length > LargestRequest)
            return null;
        try
        {
            var asked = CertificateRequest.LoadSigningRequestPem(request, s_hash, CertificateRequestLoadOptions.Default);
            using var key = asked.PublicKey.GetECDsaPublicKey();
            return key is { KeySize: 256 or 384 } ? (Sign(asked.PublicKey, new ClusterName(_clusterId, ClusterRole.Node, nodeId)), KeyHash(asked.PublicKey)) : null;
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            return null;
        }
    }

    /// <summary>SHA-256 of a key, in hex.</summary>
    public static string KeyHash(PublicKey key) => Convert.ToHexStringLower(SHA256.HashData(key.ExportSubjectPublicKeyInfo()));

    /// <summary>When a certificate was signed.</summary>
    public static DateTimeOffset SignedAt(X509Certificate2 certificate) => new DateTimeOffset(certificate.NotBefore).ToUniversalTime() + Skew;

    private X509Certificate2 Sign(PublicKey key, ClusterName name)
    {
        var now = _time.GetUtcNow();
        var request = new CertificateRequest(new X500DistinguishedName($"CN=modelhost {name.Role} {name.NodeId}"), key, s_hash);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: false, hasPathLengthConstraint: false, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, critical: true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension(s_uses, critical: false));
        request.CertificateExtensions.Add(name.ToExtension());
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(Certificate, includeKeyIdentifier: true, includeIssuerAndSerial: false));
        return request.Create(_signer, now - Skew, now + Lifetime, RandomNumberGenerator.GetBytes(16));
    }

    private void Make(DataFolder folder)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP384);
        var request = new CertificateRequest($"CN=modelhost cluster {_clusterId}", key, HashAlgorithmName.SHA384);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, hasPathLengthConstraint: true, 0, critical: true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, critical: true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        var now = _time.GetUtcNow();
        using var made = request.CreateSelfSigned(now - TimeSpan.FromDays(1), now + OwnLifetime);
        folder.WriteSecret(KeyFile, key.ExportPkcs8PrivateKeyPem());
        folder.WriteSecret(CertificateFile, made.ExportCertificatePem());
    }
}
