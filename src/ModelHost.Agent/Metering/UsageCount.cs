namespace ModelHost.Agent.Metering;

/// <summary>Some use.</summary>
/// <param name="Requests">Requests that were passed on to an engine, whether it answered or not.</param>
/// <param name="Aborted">Those of them whose answer was not passed on to its end: the client left, or the engine broke off.</param>
/// <param name="Failed">Those of them that the engine refused or failed.</param>
/// <param name="PromptTokens">Tokens read.</param>
/// <param name="CompletionTokens">Tokens written; of aborted streams those that were passed on.</param>
public readonly record struct UsageCount(long Requests, long Aborted, long Failed, long PromptTokens, long CompletionTokens)
{
    /// <summary>Both together.</summary>
    public static UsageCount operator +(UsageCount a, UsageCount b) => new(
        a.Requests + b.Requests, a.Aborted + b.Aborted, a.Failed + b.Failed, a.PromptTokens + b.PromptTokens, a.CompletionTokens + b.CompletionTokens);
}
