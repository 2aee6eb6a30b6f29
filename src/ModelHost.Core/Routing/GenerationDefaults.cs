using System.Text.Json;

namespace ModelHost.Core.Routing;

/// <summary>
/// What a gRPC backend is told where a request says nothing: by the deployment's <c>engine_args</c> of the same names, else as LocalAI has it.
/// </summary>
public sealed record GenerationDefaults
{
    /// <summary>The defaults of a deployment that says nothing.</summary>
    public static GenerationDefaults None { get; } = new();

    /// <summary>Whether the backend puts messages together by the model's own template; else the gateway does, plainly. Default true.</summary>
    public bool UseTokenizerTemplate { get; init; } = true;

    /// <summary>Default 0.9.</summary>
    public float Temperature { get; init; } = 0.9f;

    /// <summary>Default 0.95.</summary>
    public float TopP { get; init; } = 0.95f;

    /// <summary>Default 40 for backends of the llama family, else 0: as the backend has it.</summary>
    public int TopK { get; init; }

    /// <summary>Default 0.</summary>
    public float MinP { get; init; }

    /// <summary>Default 1.</summary>
    public float TypicalP { get; init; } = 1;

    /// <summary>Tail free sampling. Default 1.</summary>
    public float Tfz { get; init; } = 1;

    /// <summary>Default 0: as the backend has it.</summary>
    public float RepeatPenalty { get; init; }

    /// <summary>Default 0: as the backend has it.</summary>
    public int RepeatLastN { get; init; }

    /// <summary>Default 0.</summary>
    public float FrequencyPenalty { get; init; }

    /// <summary>Default 0.</summary>
    public float PresencePenalty { get; init; }

    /// <summary>Default 0: off.</summary>
    public int Mirostat { get; init; }

    /// <summary>Default 0.1.</summary>
    public float MirostatEta { get; init; } = 0.1f;

    /// <summary>Default 5.</summary>
    public float MirostatTau { get; init; } = 5;

    /// <summary>The most tokens of an answer; 0: no limit, which is the default.</summary>
    public int MaxTokens { get; init; }

    /// <summary>Below 0: another one for each request, which is the default.</summary>
    public int Seed { get; init; } = -1;

    /// <summary>Default 512.</summary>
    public int Batch { get; init; } = 512;

    /// <summary>Tokens of the prompt that are kept when the context is full. Default 0.</summary>
    public int NKeep { get; init; }

    /// <summary>Default false.</summary>
    public bool IgnoreEos { get; init; }

    /// <summary>Put before chats that have no system message; empty: nothing.</summary>
    public string SystemPrompt { get; init; } = "";

    /// <summary>The voice where a request names none; empty: as the backend has it.</summary>
    public string Voice { get; init; } = "";

    /// <summary>Texts that end every answer, as a list in JSON; empty: none.</summary>
    public string StopWordsJson { get; init; } = "";

    /// <summary>Texts that end every answer.</summary>
    public IReadOnlyList<string> StopWords() => StopWordsJson.Length == 0 ? [] : JsonSerializer.Deserialize<string[]>(StopWordsJson)!;

    /// <summary>Those of a deployment.</summary>
    /// <param name="backend">Its backend.</param>
    /// <param name="engineArgs">Its options. One of the wrong kind counts as not given; requests for deployments are refused with it.</param>
    public static GenerationDefaults Of(string backend, IReadOnlyDictionary<string, JsonElement> engineArgs)
    {
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(engineArgs);
        float Number(string name, float otherwise) => engineArgs.TryGetValue(name, out var value) && value.ValueKind == JsonValueKind.Number && value.TryGetSingle(out var number) ? number : otherwise;
        int Whole(string name, int otherwise) => engineArgs.TryGetValue(name, out var value) && value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var number) ? number : otherwise;
        bool Flag(string name, bool otherwise) => engineArgs.TryGetValue(name, out var value) && value.ValueKind is JsonValueKind.True or JsonValueKind.False ? value.ValueKind == JsonValueKind.True : otherwise;
        string Text(string name) => engineArgs.TryGetValue(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "";
        return new GenerationDefaults
        {
            UseTokenizerTemplate = Flag("use_tokenizer_template", None.UseTokenizerTemplate),
            Temperature = Number("temperature", None.Temperature),
            TopP = Number("top_p", None.TopP),
            TopK = Whole("top_k", backend.Contains("llama", StringComparison.OrdinalIgnoreCase) ? 40 : 0),
            MinP = Number("min_p", 0),
            TypicalP = Number("typical_p", None.TypicalP),
            Tfz = Number("tfz", None.Tfz),
            RepeatPenalty = Number("repeat_penalty", 0),
            RepeatLastN = Whole("repeat_last_n", 0),
            FrequencyPenalty = Number("frequency_penalty", 0),
            PresencePenalty = Number("presence_penalty", 0),
            Mirostat = Whole("mirostat", 0),
            MirostatEta = Number("mirostat_eta", None.MirostatEta),
            MirostatTau = Number("mirostat_tau", None.MirostatTau),
            MaxTokens = Whole("max_tokens", 0),
            Seed = Whole("seed", None.Seed),
            Batch = Whole("batch", None.Batch),
            NKeep = Whole("n_keep", 0),
            IgnoreEos = Flag("ignore_eos", false),
            SystemPrompt = Text("system_prompt"),
            Voice = Text("voice"),
            StopWordsJson = engineArgs.TryGetValue("stopwords", out var stops) && stops.ValueKind == JsonValueKind.Array
                && stops.EnumerateArray().All(stop => stop.ValueKind == JsonValueKind.String) ? stops.GetRawText() : "",
        };
    }
}
