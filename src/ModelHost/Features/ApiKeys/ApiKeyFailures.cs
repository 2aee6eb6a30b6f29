using ModelHost.Core;

namespace ModelHost.Features.ApiKeys;

/// <summary>The refusals of keys.</summary>
internal static class ApiKeyFailures
{
    public static Failure NotFound(int id) => new(FailureKind.NotFound, "api_key.not_found", $"There is no API key {id}.");

    public static Failure Temporary(int id) =>
        new(FailureKind.Conflict, "api_key.temporary", $"API key {id} is a temporary one, which cannot be changed: revoke it and make another.");

    public static Failure LastPermanent(int id) => new(FailureKind.Conflict, "api_key.last_permanent",
        $"API key {id} is the last permanent one. Without it the gateway asks no program on this machine for a key. If that is meant, say so with ?acknowledge_open_gateway=true.");

    public static Failure Exceeds(string field, string what) =>
        new(FailureKind.Invalid, "api_key.exceeds_maker", $"{what} the key that makes it does not have", field);

    public static Failure MakerGone() => new(FailureKind.Conflict, "api_key.maker_gone", "The key that was to make this one has been revoked.");

    public static Failure TooMany(int limit, string of) =>
        new(FailureKind.Conflict, "api_key.too_many", $"There are {limit} {of} already; revoke some, or wait until temporary ones have ended.");
}
