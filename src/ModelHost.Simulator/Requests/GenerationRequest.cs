namespace ModelHost.Simulator.Requests;

/// <summary>A prompt as the engine sees it.</summary>
internal readonly record struct Prompt(string Text, int Tokens);

/// <summary>A chat or completion request that has passed every check.</summary>
internal sealed record GenerationRequest
{
    /// <summary>The name that goes into the answer: the first served name, or the adapter's.</summary>
    public required string Model { get; init; }

    /// <summary>The adapter that the request names; null for the model itself.</summary>
    public string? Adapter { get; init; }

    /// <summary>The engine that is to answer; null leaves the choice to the server.</summary>
    public int? EngineIndex { get; init; }

    /// <summary>Prompts share cached blocks only with those of the same salt.</summary>
    public string? CacheSalt { get; init; }

    public required IReadOnlyList<Prompt> Prompts { get; init; }

    public required int MaxTokens { get; init; }

    public int N { get; init; } = 1;

    public int MinTokens { get; init; }

    public bool IgnoreEndOfText { get; init; }

    public IReadOnlyList<string> Stop { get; init; } = [];

    public bool IncludeStop { get; init; }

    public long? Seed { get; init; }

    public bool Stream { get; init; }

    public bool IncludeUsage { get; init; }

    public bool ContinuousUsage { get; init; }

    /// <summary>The likeliest tokens that are told of each token of the answer, -1 for all; null tells nothing, not even of the token itself.</summary>
    public int? Logprobs { get; init; }

    /// <inheritdoc cref="Logprobs"/>
    /// <remarks>Of each token of the prompt.</remarks>
    public int? PromptLogprobs { get; init; }

    /// <summary>Completions only: the prompt comes before the text.</summary>
    public bool Echo { get; init; }

    /// <summary>Chat only: the answer is these calls.</summary>
    public IReadOnlyList<ToolCall> Calls { get; init; } = [];

    /// <summary>Chat only: the answer is this JSON, if it has no calls.</summary>
    public string? Json { get; init; }

    /// <summary>Chat only: the answer begins with reasoning.</summary>
    public bool Reasons { get; init; }

    /// <summary>Reasoning goes out.</summary>
    public bool ShowReasoning { get; init; }

    /// <summary>Answers in all.</summary>
    public int Sequences => Prompts.Count * N;

    public int PromptTokens
    {
        get
        {
            var sum = 0;
            foreach (var prompt in Prompts)
                sum += prompt.Tokens;
            return sum;
        }
    }
}
