using System.Security.Cryptography;
using Google.Protobuf;
using Microsoft.Extensions.Options;
using ModelHost.Core.Access;
using ModelHost.Features.ApiKeys;
using ModelHost.Gateway;
using ModelHost.Protocol;

namespace ModelHost.Access;

/// <summary>What nodes are told of who may ask engines directly: as the gateway would judge. Hashes of keys, and no key.</summary>
internal sealed class NodeAccess(ApiKeyRing ring, KeyHasher hasher, AdminKey adminKey, IOptions<AccessOptions> access, IOptions<GatewayOptions> gateway)
{
    private volatile Told? _told;

    /// <summary>It as of now; the same object until it changes. Not to be changed.</summary>
    public AccessRequest Current
    {
        get
        {
            var (keys, isClosed) = ring.Current;
            if (_told is not { } told || !ReferenceEquals(told.Keys, keys))
                _told = told = new Told(keys, Request(keys.Values, isClosed));
            return told.Request;
        }
    }

    /// <summary>Completes when it changes after this call: ask first, then read <see cref="Current"/>.</summary>
    public Task ChangedAsync(CancellationToken cancellationToken) => ring.ChangedAsync(cancellationToken);

    private AccessRequest Request(IEnumerable<KnownKey> keys, bool isClosed)
    {
        var request = new AccessRequest
        {
            Pepper = ByteString.CopyFrom(hasher.Pepper),
            IsClosed = isClosed,
            AdminKeyHash = ByteString.CopyFrom(adminKey.Hashed),
            TrustedLan = access.Value.TrustedLan,
            MaxRequestBytes = gateway.Value.MaxRequestBytes,
        };
        request.Keys.AddRange(keys.Select(Key));
        request.Version = Convert.ToHexStringLower(SHA256.HashData(request.ToByteArray()));
        return request;
    }

    private static AccessKey Key(KnownKey key)
    {
        var told = new AccessKey
        {
            Id = key.Row.Id,
            Hash = ByteString.CopyFrom(key.Hash),
            IsForInference = key.Grant.Roles.HasFlag(KeyRoles.Inference),
            Deployments = Names(key.Grant.Scope.Deployments),
            Models = Names(key.Grant.Scope.Models),
        };
        if (key.Grant.ExpiresAt is { } end)
            told.ExpiresAt = end.ToUnixTimeMilliseconds() / 1000.0;
        return told;
    }

    // sorted: the same names are the same version
    private static AccessNames? Names(IEnumerable<string>? names) => names is null ? null : new AccessNames { Names = { names.Order(StringComparer.Ordinal) } };

    private sealed record Told(object Keys, AccessRequest Request);
}
