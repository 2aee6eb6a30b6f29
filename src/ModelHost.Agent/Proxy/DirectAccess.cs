using System.Security.Cryptography;
using System.Text;
using Google.Protobuf;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using ModelHost.Agent.Http;
using ModelHost.Core.Access;
using ModelHost.Core.Routing;
using ModelHost.Protocol;

namespace ModelHost.Agent.Proxy;

/// <summary>
/// Who may ask engines directly: what the control plane said last, kept in <c>keys/direct-access</c> of the data folder, so that a node that is cut off,
/// or was restarted, goes on by it. Until the control plane has said something, keys are needed and none is right.
/// </summary>
internal sealed partial class DirectAccess(string dataFolder, TimeProvider time, ILogger logger)
{
    private readonly string _path = Path.Combine(dataFolder, "keys", "direct-access");
    private volatile Known _known = Known.Nothing;

    /// <summary>Names what the control plane said; empty: nothing yet.</summary>
    public string Version => _known.Version;

    /// <summary>Largest body of a request in bytes.</summary>
    public long MaxRequestBytes => _known.MaxRequestBytes;

    /// <summary>Reads what was kept; a file that is none of ours counts as none.</summary>
    public void Load()
    {
        try
        {
            if (File.Exists(_path))
                _known = Known.Of(AccessRequest.Parser.ParseFrom(File.ReadAllBytes(_path)));
        }
        catch (Exception e) when (e is InvalidProtocolBufferException or ArgumentException or IOException or UnauthorizedAccessException)
        {
            LogUnreadable(_path, e.Message);
        }
    }

    /// <summary>Takes what the control plane says.</summary>
    /// <exception cref="ArgumentException">It makes no sense; what was there before stays.</exception>
    public void Take(AccessRequest request)
    {
        _known = Known.Of(request);
        try
        {
            WholeFile.Write(_path, request.WriteTo);
        }
        catch (IOException e)
        {
            LogNotKept(e.Message);
        }
    }

    /// <summary>Why a request may not ask a deployment; null: it may.</summary>
    /// <param name="context">The request.</param>
    /// <param name="route">The deployment.</param>
    /// <param name="isLoopback">Whether the port is reached from this machine only.</param>
    /// <param name="caller">Who sends it.</param>
    public (int Status, OpenAiError Error)? Refusal(HttpContext context, ModelRoute route, bool isLoopback, out DirectCaller caller)
    {
        var known = _known;
        caller = default;
        var given = Credential.Read(context.Request.Headers, takesAnthropicKey: true, out var isGiven, out _);
        if (known.Keys.Find(given) is { } key && !key.Grant.HasEnded(time.GetUtcNow()))
        {
            caller = key.Caller;
            if (!key.Grant.Roles.HasFlag(KeyRoles.Inference))
                return (StatusCodes.Status403Forbidden, OpenAiErrors.RoleForbidden());
            return Covers(key.Grant.Scope, route) ? null : (StatusCodes.Status403Forbidden, OpenAiErrors.ModelForbidden(route.PublicName));
        }
        if (!known.IsClosed && (known.TrustedLan || (isLoopback && LocalRequest.IsLocal(context)) || known.IsAdminKey(given)))
            return null;
        return (StatusCodes.Status401Unauthorized, OpenAiErrors.InvalidApiKey(hasKey: isGiven, keysExist: known.IsClosed));
    }

    /// <summary>Who sends a request that nobody asks for a key.</summary>
    public DirectCaller Caller(HttpContext context) =>
        _known.Keys.Find(Credential.Read(context.Request.Headers, takesAnthropicKey: true, out _, out _)) is { } key && !key.Grant.HasEnded(time.GetUtcNow()) ? key.Caller : default;

    /// <summary>Whether a scope has all that a deployment serves: nobody looks here which of its names a request asks for.</summary>
    private static bool Covers(RouteScope scope, ModelRoute route) =>
        scope.Allows(route, route.PublicName) && route.LoraNames.All(adapter => scope.Allows(route, adapter));

    [LoggerMessage(2401, LogLevel.Warning, "{File} cannot be read; public ports let nobody in until the control plane has said who may: {Reason}")]
    private partial void LogUnreadable(string file, string reason);

    [LoggerMessage(2402, LogLevel.Warning, "Who may use public ports could not be written down, and would be as before after a restart: {Reason}")]
    private partial void LogNotKept(string reason);

    private sealed record Key(DirectCaller Caller, KeyGrant Grant);

    private sealed record Known(string Version, HashedKeys<Key> Keys, bool IsClosed, byte[] AdminKeyHash, bool TrustedLan, long MaxRequestBytes)
    {
        public static Known Nothing { get; } = new("", new([], []), IsClosed: true, [], TrustedLan: false, GatewayRoutes.DefaultMaxRequestBytes);

        public static Known Of(AccessRequest request)
        {
            if (request.Pepper.IsEmpty || request.Keys.Any(key => key.Hash.Length != KeyHash.Length) || request.Version.Length == 0 || request.MaxRequestBytes <= 0)
                throw new ArgumentException("this does not say who may use public ports", nameof(request));
            return new Known(request.Version, new HashedKeys<Key>(request.Pepper.ToByteArray(), request.Keys.Select(key => (key.Hash.ToByteArray(), new Key(new DirectCaller(key.Id, KeyHash.Mark(key.Hash.Span)), Grant(key))))),
                request.IsClosed, request.AdminKeyHash.ToByteArray(), request.TrustedLan, request.MaxRequestBytes);
        }

        public bool IsAdminKey(ReadOnlySpan<char> given)
        {
            if (given.IsEmpty || AdminKeyHash.Length == 0)
                return false;
            var bytes = new byte[Encoding.UTF8.GetByteCount(given)];
            Encoding.UTF8.GetBytes(given, bytes);
            return CryptographicOperations.FixedTimeEquals(SHA256.HashData(bytes), AdminKeyHash);
        }

        private static KeyGrant Grant(AccessKey key) => new(
            key.IsForInference ? KeyRoles.Inference : KeyRoles.None, RouteScope.Of(key.Deployments?.Names, key.Models?.Names),
            key.HasExpiresAt ? DateTimeOffset.UnixEpoch.AddSeconds(key.ExpiresAt) : null);
    }
}
