namespace ModelHost.Agent.Metering;

/// <summary>Some use.</summary>
/// <param name="Requests">Requests that were passed on to an engine, whether it answered or not.</param>
/// <param name="Aborted">Those of them whose answer was not passed on to its end: the client left, or the engine broke off.</param>
/// <param name="Failed">Those of them that the engine refused or failed.</param>
/// <param name="PromptTokens">Tokens read.</param>
/// <param name="CompletionTokens">Tokens written; of aborted streams those that were passed on.</param>
public readonly record struct UsageCount(long Requests, long Aborted, long Failed, long PromptTokens, long CompletionTokens)
{
    /// <summary>
    /// The most of each that is believed of one key, one deployment and one day: 12 million tokens in every second of it. Sums of millions of such days can be counted.
    /// </summary>
    public const long Most = 1L << 40;

    /// <summary>It, with no part of it above <see cref="Most"/>.</summary>
    public UsageCount Bounded => new(
        Math.Min(Requests, Most), Math.Min(Aborted, Most), Math.Min(Failed, Most), Math.Min(PromptTokens, Most), Math.Min(CompletionTokens, Most));

    /// <summary>Whether no part of it is above <see cref="Most"/>, below nothing, or more than the whole that it is a part of.</summary>
    public bool IsBelievable => Requests is >= 0 and <= Most && PromptTokens is >= 0 and <= Most && CompletionTokens is >= 0 and <= Most
        && Aborted >= 0 && Aborted <= Requests && Failed >= 0 && Failed <= Requests;

    /// <summary>Both together.</summary>
    public static UsageCount operator +(UsageCount a, UsageCount b) => new(
        a.Requests + b.Requests, a.Aborted + b.Aborted, a.Failed + b.Failed, a.PromptTokens + b.PromptTokens, a.CompletionTokens + b.CompletionTokens);
}
