namespace ModelHost.Simulator.Options;

/// <summary>
/// What differs between the releases of vLLM, apart from flags, log lines and metrics, which have tables of their own. Where only "older"
/// and "newer" are known, the line is drawn at <see cref="EarlyYear"/>: what is known of the newer ones was read in sources of 2026.
/// </summary>
internal static class Traits
{
    /// <summary>The first release after February 2026.</summary>
    public const string EarlyYear = "0.18";

    /// <summary>The members of an error stand in the body itself, beside <c>"object": "error"</c>.</summary>
    public static readonly Lifespan FlatErrors = Lifespan.Until("0.11");

    /// <summary>Reasoning goes out as <c>reasoning_content</c>: until Nov 2025 alone, then beside the new name until about 0.17.</summary>
    public static readonly Lifespan WritesReasoningContent = Lifespan.Until("0.17");

    /// <summary>Reasoning goes out as <c>reasoning</c>.</summary>
    public static readonly Lifespan WritesReasoning = Lifespan.Since("0.12");

    /// <summary>An answer without tool calls has an empty array of them.</summary>
    public static readonly Lifespan EmptyToolCalls = Lifespan.Until(EarlyYear);

    /// <summary><c>stream_options</c> without <c>include_usage</c> asks for usage.</summary>
    public static readonly Lifespan ImpliesUsage = Lifespan.Until(EarlyYear);

    /// <summary>The error of a prompt that is too long names its parameter.</summary>
    public static readonly Lifespan NamesLongPrompt = Lifespan.Since(EarlyYear);

    /// <summary>Answers have a fingerprint of the server; before, it is null, and streams leave it out.</summary>
    public static readonly Lifespan HasFingerprint = Lifespan.Since(EarlyYear);

    /// <summary>Usage tells how many tokens were reasoning.</summary>
    public static readonly Lifespan CountsReasoning = Lifespan.Since(EarlyYear);

    /// <summary>Choices of chats have <c>routed_experts</c>, and the first chunk of each in a stream <c>prompt_text</c>.</summary>
    public static readonly Lifespan TellsOfExpertsAndPrompt = Lifespan.Since(Release.Default);

    /// <summary>A request has at most four stop strings.</summary>
    public static readonly Lifespan LimitsStops = Lifespan.Since(EarlyYear);

    /// <summary>The key guards <c>/v2</c>, <c>/inference</c> and <c>/cohere</c> too.</summary>
    public static readonly Lifespan GuardsEveryApi = Lifespan.Since(EarlyYear);

    /// <summary>Of the GPU's memory 0.92 is taken unless told otherwise, and 0.9 before.</summary>
    public static readonly Lifespan TakesMore = Lifespan.Since(EarlyYear);

    /// <summary>The memory of CUDA graphs is taken off the KV cache; before, it comes on top of the budget.</summary>
    public static readonly Lifespan EstimatesGraphs = Lifespan.Since("0.21");

    /// <summary>Sleep stops the scheduler. Before, whoever sends a request to a sleeping engine kills it; last seen with a candidate of 0.11.1.</summary>
    public static readonly Lifespan PausesInSleep = Lifespan.Since("0.12");

    /// <summary>Requests wait until all memory is back. Before, those that come after a partial wake kill the engine.</summary>
    public static readonly Lifespan WaitsForAllMemory = Lifespan.Since("0.23");

    /// <summary>Requests that ended with error or repetition are counted.</summary>
    public static readonly Lifespan CountsErrors = Lifespan.Since(EarlyYear);

    /// <summary>The cache's settings in <c>/metrics</c> include its size.</summary>
    public static readonly Lifespan ShowsCacheSize = Lifespan.Since(Release.Default);

    /// <summary><c>/sleep</c> takes tags.</summary>
    public static readonly Lifespan SleepsByTag = Lifespan.Since(Release.Default);

    /// <summary>The log begins with a logo.</summary>
    public static readonly Lifespan HasLogo = Lifespan.Since(EarlyYear);

    /// <summary>A stop ends the engine before the HTTP server, and says so. Before, work in flight is simply lost.</summary>
    public static readonly Lifespan StopsEngineFirst = Lifespan.Since("0.18");
}
