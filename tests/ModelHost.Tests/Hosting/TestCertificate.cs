using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using ModelHost.Hosting;
using ModelHost.TestKit;

namespace ModelHost.Tests.Hosting;

/// <summary>A certificate of its own for a listener.</summary>
internal static class TestCertificate
{
    /// <summary>Makes one in the node's data folder.</summary>
    /// <returns>It, and the settings that name it: the certificate first, then its key.</returns>
    public static (X509Certificate2 Certificate, string[] Settings) Make(TestNode node)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=localhost", key, HashAlgorithmName.SHA256);
        var certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
        var (cert, pem) = (Path.Combine(node.Data, "server.crt"), Path.Combine(node.Data, "server.key"));
        File.WriteAllText(cert, certificate.ExportCertificatePem());
        File.WriteAllText(pem, key.ExportPkcs8PrivateKeyPem());
        return (certificate, [$"{ListenerOptions.Section}:TlsCert={cert}", $"{ListenerOptions.Section}:TlsKey={pem}"]);
    }
}
