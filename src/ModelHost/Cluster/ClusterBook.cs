using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using ModelHost.Hosting;

namespace ModelHost.Cluster;

/// <summary>A node to which the authority has given a certificate.</summary>
internal sealed record ClusterMember
{
    /// <summary>The name under which it joined.</summary>
    public required string Name { get; init; }

    /// <summary>SHA-256 of the key of its latest certificate.</summary>
    public required string KeyHash { get; init; }

    public required DateTimeOffset JoinedAt { get; init; }

    /// <summary>Certificates that were signed earlier count no more.</summary>
    public required DateTimeOffset ValidFrom { get; init; }

    /// <summary>When it was last given a further certificate; null: never.</summary>
    public DateTimeOffset? RenewedAt { get; init; }

    /// <summary>Since when none of its certificates counts; null: they do.</summary>
    public DateTimeOffset? RevokedAt { get; init; }
}

/// <summary>
/// The authority's book of members, beside its key in <c>ca/members.json</c>: what it has revoked stays revoked when the database is lost. Read often,
/// written seldom and whole.
/// </summary>
internal sealed class ClusterBook
{
    private const string File = "ca/members.json";
    private static readonly JsonSerializerOptions s_json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower, WriteIndented = true };

    private readonly DataFolder _folder;
    private readonly Lock _lock = new();
    private volatile IReadOnlyDictionary<string, ClusterMember> _members;

    /// <summary>Reads the book.</summary>
    /// <exception cref="InvalidDataException">It is damaged: who was revoked is not known.</exception>
    public ClusterBook(DataFolder folder)
    {
        _folder = folder;
        try
        {
            _members = folder.Read(File) is { } text ? JsonSerializer.Deserialize<Dictionary<string, ClusterMember>>(text, s_json)! : new Dictionary<string, ClusterMember>();
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{folder.File(File)} is damaged; restore it from a copy, or remove it, which lets revoked nodes in again.", e);
        }
    }

    /// <summary>All members by the ids of their nodes.</summary>
    public IReadOnlyDictionary<string, ClusterMember> Members => _members;

    /// <summary>Whether none of a node's certificates counts.</summary>
    public bool IsRevoked(string nodeId) => _members.GetValueOrDefault(nodeId) is { RevokedAt: not null };

    /// <summary>Whether a certificate that the authority signed for a node still counts.</summary>
    /// <returns>Why not; null: it does. One of a node that the book has lost counts.</returns>
    public string? Fault(string nodeId, X509Certificate2 certificate) => _members.GetValueOrDefault(nodeId) switch
    {
        null => null,
        { RevokedAt: { } at } => $"the certificates of this node were revoked at {at:u}",
        { } member => ClusterAuthority.SignedAt(certificate) < member.ValidFrom ? "the node has joined anew since this certificate was signed" : null,
    };

    /// <summary>Changes the entry of a node.</summary>
    /// <param name="nodeId">The node.</param>
    /// <param name="change">Makes the new entry of the old one, which may be null.</param>
    public void Write(string nodeId, Func<ClusterMember?, ClusterMember> change)
    {
        lock (_lock)
        {
            var members = new Dictionary<string, ClusterMember>(_members) { [nodeId] = change(_members.GetValueOrDefault(nodeId)) };
            _folder.WriteSecret(File, JsonSerializer.Serialize(members, s_json));
            _members = members;
        }
    }
}
