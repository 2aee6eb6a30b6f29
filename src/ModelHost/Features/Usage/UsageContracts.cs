using System.Text.Json.Serialization;

namespace ModelHost.Features.Usage;

/// <summary>What models were used for in some days: by way of <c>/v1</c>, and directly on their nodes.</summary>
/// <param name="From">The first day (UTC).</param>
/// <param name="To">The last day.</param>
/// <param name="GroupBy">What the rows are apart by.</param>
/// <param name="Data">The rows, those with most tokens first, or by day where that is one of the groups.</param>
/// <param name="Total">All of them.</param>
public sealed record UsageRead(DateOnly From, DateOnly To, IReadOnlyList<string> GroupBy, IReadOnlyList<UsageGroup> Data, UsageSum Total);

/// <summary>Some use in all.</summary>
public record UsageSum
{
    /// <summary>Requests that were passed on to an engine, whether it answered or not.</summary>
    public long Requests { get; init; }

    /// <summary>Those of them whose answer was not passed on to its end: the client left, or the engine broke off.</summary>
    public long AbortedRequests { get; init; }

    /// <summary>Those of them that the engine answered with an error.</summary>
    public long FailedRequests { get; init; }

    /// <summary>Tokens that models read.</summary>
    public long PromptTokens { get; init; }

    /// <summary>Tokens that models wrote; of aborted streams those that were passed on.</summary>
    public long CompletionTokens { get; init; }

    /// <summary>Both.</summary>
    public long TotalTokens => PromptTokens + CompletionTokens;
}

/// <summary>The use of one group; only the fields that it is grouped by are there.</summary>
public sealed record UsageGroup : UsageSum
{
    /// <summary>The day (UTC).</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull), JsonPropertyOrder(-6)]
    public DateOnly? Day { get; init; }

    /// <summary>Id of the API key; 0: asked without one, or with the admin key.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull), JsonPropertyOrder(-5)]
    public int? KeyId { get; init; }

    /// <summary>Its label, as it was called last.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull), JsonPropertyOrder(-4)]
    public string? KeyLabel { get; init; }

    /// <summary>The deployment, by the id that does not change.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull), JsonPropertyOrder(-3)]
    public string? DeploymentUid { get; init; }

    /// <summary>Its id in the API, as it was last.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull), JsonPropertyOrder(-3)]
    public int? DeploymentId { get; init; }

    /// <summary>Its public name, as it was last.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull), JsonPropertyOrder(-2)]
    public string? Model { get; init; }

    /// <summary>Who asked for the deployment.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull), JsonPropertyOrder(-1)]
    public string? Owner { get; init; }
}
