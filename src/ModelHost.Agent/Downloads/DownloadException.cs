using System.Net.Http.Headers;

namespace ModelHost.Agent.Downloads;

/// <summary>Something could not be downloaded or unpacked. The message is for a person and names no secret.</summary>
/// <param name="code">
/// A stable name: <c>address_refused</c>, <c>unreachable</c>, <c>timed_out</c>, <c>not_found</c>, <c>access_denied</c>, <c>http_status</c>,
/// <c>redirect_refused</c>, <c>too_large</c>, <c>hash_mismatch</c>, <c>disk_full</c>, <c>uri_invalid</c>, <c>archive_invalid</c>,
/// <c>pickle_refused</c>, <c>answer_invalid</c>, <c>install_failed</c>, <c>image</c>.
/// </param>
/// <param name="message">What happened.</param>
/// <param name="isPassing">Whether another attempt at the same address may go better.</param>
/// <param name="inner">Where that came from.</param>
public sealed class DownloadException(string code, string message, bool isPassing = false, Exception? inner = null) : IOException(message, inner)
{
    /// <summary>What kind of failure it is.</summary>
    public string Code => code;

    /// <summary>Whether another attempt may go better.</summary>
    public bool IsPassing => isPassing;

    /// <summary>How long the server wants to be left alone; null: it did not say.</summary>
    public TimeSpan? RetryAfter { get; init; }

    /// <summary>The <c>WWW-Authenticate</c> of an answer that wants a login, where it is that of the host that was asked and not of one it redirects to; null: none.</summary>
    internal AuthenticationHeaderValue? Challenge { get; init; }
}
