using System.Diagnostics.CodeAnalysis;
using System.Formats.Asn1;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.RegularExpressions;

namespace ModelHost.Cluster;

/// <summary>What a holder of a certificate may do.</summary>
internal enum ClusterRole
{
    /// <summary>Commands nodes.</summary>
    ControlPlane,

    /// <summary>Is commanded, and reports; commands nobody.</summary>
    Node,
}

/// <summary>Whose a certificate is: it stands in it as the URI <c>modelhost://CLUSTER/ROLE/NODE</c>, and nothing else in it counts.</summary>
/// <param name="ClusterId">Id of the cluster.</param>
/// <param name="Role">What the holder may do.</param>
/// <param name="NodeId">Id of the node; of the control plane, that of the node in its process.</param>
internal sealed partial record ClusterName(string ClusterId, ClusterRole Role, string NodeId)
{
    private const string SubjectAlternativeNames = "2.5.29.17";
    private const int UriTag = 6;

    /// <summary>The extension of a certificate that names the holder.</summary>
    public X509Extension ToExtension()
    {
        var names = new SubjectAlternativeNameBuilder();
        names.AddUri(new Uri($"modelhost://{ClusterId}/{Word(Role)}/{NodeId}"));
        return names.Build();
    }

    /// <summary>Reads whose a certificate is, without believing it.</summary>
    /// <returns>Null: it does not say, or says it twice.</returns>
    public static ClusterName? Read(X509Certificate2 certificate)
    {
        try
        {
            return certificate.Extensions.Where(extension => extension.Oid?.Value == SubjectAlternativeNames).SelectMany(Uris).ToArray() is [var uri]
                && Form().Match(uri) is { Success: true } match
                ? new ClusterName(match.Groups["cluster"].Value, match.Groups["role"].Value == Word(ClusterRole.Node) ? ClusterRole.Node : ClusterRole.ControlPlane, match.Groups["node"].Value)
                : null;
        }
        catch (Exception e) when (e is AsnContentException or CryptographicException)
        {
            return null;
        }
    }

    /// <summary>Whether a text has the form of the id of a node.</summary>
    public static bool IsNodeId([NotNullWhen(true)] string? id) => id is not null && Id().IsMatch(id);

    private static IEnumerable<string> Uris(X509Extension extension)
    {
        var names = new AsnReader(extension.RawData, AsnEncodingRules.DER).ReadSequence();
        while (names.HasData)
        {
            var uri = new Asn1Tag(TagClass.ContextSpecific, UriTag);
            if (names.PeekTag() == uri)
                yield return names.ReadCharacterString(UniversalTagNumber.IA5String, uri);
            else
                names.ReadEncodedValue();
        }
    }

    private static string Word(ClusterRole role) => role switch
    {
        ClusterRole.ControlPlane => "control-plane",
        ClusterRole.Node => "node",
    };

    [GeneratedRegex(@"\Amodelhost://(?<cluster>[0-9a-f]{32})/(?<role>control-plane|node)/(?<node>[0-9a-f]{32})\z")]
    private static partial Regex Form();

    [GeneratedRegex(@"\A[0-9a-f]{32}\z")]
    private static partial Regex Id();
}

/// <summary>Decides whom a certificate of the other side proves it to be.</summary>
internal sealed class ClusterTrust(X509Certificate2 authority, string clusterId, TimeProvider time)
{
    private const string ClientAuthentication = "1.3.6.1.5.5.7.3.2", ServerAuthentication = "1.3.6.1.5.5.7.3.1";

    // a chain takes a millisecond of a processor to verify, and a connection shows the same certificate with each of its requests: only the time is another
    private readonly ConditionalWeakTable<X509Certificate2, ClusterName> _verified = [];

    /// <summary>Checks a certificate.</summary>
    /// <param name="certificate">What the other side showed; null: nothing.</param>
    /// <param name="name">Whom it proves it to be.</param>
    /// <param name="grace">How long ago it may have run out.</param>
    /// <returns>Why it proves nothing; null: it does.</returns>
    public string? Check(X509Certificate? certificate, [NotNull] out ClusterName? name, TimeSpan grace = default)
    {
        name = Nobody;
        if (certificate is not X509Certificate2 shown)
            return "no certificate was shown";
        var now = time.GetUtcNow().UtcDateTime;
        var (from, to) = (shown.NotBefore.ToUniversalTime(), shown.NotAfter.ToUniversalTime());
        if (now < from)
            return $"the certificate is not valid before {from:u}, and here it is {now:u}";
        if (now > to + grace)
            return $"the certificate ran out at {to:u}, and here it is {now:u}";
        if (_verified.TryGetValue(shown, out var known))
        {
            name = known;
            return null;
        }
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.Add(authority);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck; // by the book of the authority, not by lists on the web
        chain.ChainPolicy.DisableCertificateDownloads = true;
        chain.ChainPolicy.ApplicationPolicy.Add(new Oid(ClientAuthentication));
        chain.ChainPolicy.ApplicationPolicy.Add(new Oid(ServerAuthentication));
        chain.ChainPolicy.VerificationTime = (now < to ? now : to.AddSeconds(-1)).ToLocalTime();
        if (!chain.Build(shown))
            return $"the certificate is not of this cluster: {string.Join("; ", chain.ChainStatus.Select(status => status.StatusInformation.Trim()))}";
        if (ClusterName.Read(shown) is not { } told || told.ClusterId != clusterId)
            return "the certificate does not name a member of this cluster";
        name = told;
        _verified.AddOrUpdate(shown, told);
        return null;
    }

    /// <summary>Checks a certificate, and that it is that of a role.</summary>
    /// <inheritdoc cref="Check(X509Certificate?, out ClusterName?, TimeSpan)"/>
    public string? Check(X509Certificate? certificate, ClusterRole role, [NotNull] out ClusterName? name) =>
        Check(certificate, out name) ?? (name.Role == role ? null : $"the certificate is that of a {name.Role}, and a {role} is wanted");

    private ClusterName Nobody => new(clusterId, ClusterRole.Node, "");
}
