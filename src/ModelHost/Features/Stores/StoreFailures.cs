using ModelHost.Core;

namespace ModelHost.Features.Stores;

/// <summary>Why a store was not changed or asked; the words that LocalAI has for it are LocalAI's.</summary>
internal static class StoreFailures
{
    /// <summary>What LocalAI refuses with 500.</summary>
    public static Failure Refused(string words) => new(FailureKind.Conflict, "store.refused", words);

    public static Failure NotFinite(string field) => Failure.Invalid(field, $"{field} is outside the range of a 32-bit floating-point number.");

    public static Failure NoNumbers(string field) => Failure.Invalid(field, $"{field} has no numbers.");

    public static Failure NoValue(int index) => Failure.Invalid($"values[{index}]", $"values[{index}] is null.");

    public static Failure TooLong(string field) => Failure.Invalid(field, $"{field} has more than {StoreService.LargestDimension} numbers.");

    public static Failure BadName() => Failure.Invalid("store", $"store must be a name of at most {StoreService.LongestName} bytes, counted as in a URL.");

    public static Failure TooManyResults() => Failure.Invalid("topk", $"topk is above {StoreService.MostMatches}.");

    public static Failure UnknownBackend(string backend) => Failure.Invalid("backend", $"There is no store backend '{Shown(backend)}'; there is local-store.");

    public static Failure NoDeployment(string backend, string store) => Failure.Invalid("store", $"No deployment of '{Shown(backend)}' serves a store '{Shown(store)}'.");

    public static Failure NoAnswer(string store) => new(FailureKind.Unavailable, "store.no_answer", $"The backend of the store '{Shown(store)}' does not answer.");

    private static string Shown(string name) => name.Length <= 64 ? name : name[..64] + "…";

    public static Failure TooMany(int limit) => new(FailureKind.Unavailable, "store.too_many", $"There are {limit} stores (Stores:MaxStores).");

    public static Failure Full() => new(FailureKind.Unavailable, "store.full", "The stores have no room for this (Stores:MaxBytes).");

    public static Failure NotWritten() => new(FailureKind.Unavailable, "store.not_written", "The change could not be written to the disk; nothing was changed.");

    public static Failure Broken() => new(FailureKind.Unavailable, "store.broken", "The store takes no changes before a restart of ModelHost; its log says why.");

    public static Failure Unreadable(string name) => new(FailureKind.Unavailable, "store.unreadable", $"The file of the store '{name}' cannot be read; the log says why.");
}
