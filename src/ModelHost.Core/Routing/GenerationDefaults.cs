using System.Text.Json;

namespace ModelHost.Core.Routing;

/// <summary>
/// What a gRPC backend is told where a request says nothing: by the deployment's <c>engine_args</c> of the same names, else as LocalAI has it.
/// </summary>
public sealed record GenerationDefaults
{
    private const string Number = "a number", Whole = "a whole number", Flag = "true or false", Text = "a text", Texts = "a list of texts";

    /// <summary>The options that are for here alone, with what each takes; <c>seed</c> and <c>batch</c> are the backend's too.</summary>
    private static readonly Dictionary<string, string> Kinds = new()
    {
        ["use_tokenizer_template"] = Flag,
        ["temperature"] = Number,
        ["top_p"] = Number,
        ["top_k"] = Whole,
        ["min_p"] = Number,
        ["typical_p"] = Number,
        ["tfz"] = Number,
        ["repeat_penalty"] = Number,
        ["repeat_last_n"] = Whole,
        ["frequency_penalty"] = Number,
        ["presence_penalty"] = Number,
        ["mirostat"] = Whole,
        ["mirostat_eta"] = Number,
        ["mirostat_tau"] = Number,
        ["max_tokens"] = Whole,
        ["n_keep"] = Whole,
        ["ignore_eos"] = Flag,
        ["system_prompt"] = Text,
        ["voice"] = Text,
        ["stopwords"] = Texts,
    };

    /// <summary>Names of the options.</summary>
    public static IReadOnlyCollection<string> Options => Kinds.Keys;

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

    /// <summary>Checks the options of a request for a deployment.</summary>
    /// <returns>The first fault, or null.</returns>
    public static Failure? Check(IReadOnlyDictionary<string, JsonElement> engineArgs)
    {
        ArgumentNullException.ThrowIfNull(engineArgs);
        return engineArgs.Where(arg => Kinds.TryGetValue(arg.Key, out var kind) && arg.Value.ValueKind != JsonValueKind.Null && !Is(arg.Value, kind))
            .Select(arg => Failure.Invalid("engine_args", $"'{arg.Key}' takes {Kinds[arg.Key]}")).FirstOrDefault();
    }

    /// <summary>Those of a deployment.</summary>
    /// <param name="backend">Its backend.</param>
    /// <param name="engineArgs">Its options; one of the wrong kind counts as not given.</param>
    public static GenerationDefaults Of(string backend, IReadOnlyDictionary<string, JsonElement> engineArgs)
    {
        ArgumentNullException.ThrowIfNull(backend);
        ArgumentNullException.ThrowIfNull(engineArgs);
        JsonElement? Given(string name, string kind) => engineArgs.TryGetValue(name, out var value) && Is(value, kind) ? value : null;
        float OfNumber(string name, float otherwise) => Given(name, Number)?.GetSingle() ?? otherwise;
        int OfWhole(string name, int otherwise) => Given(name, Whole)?.GetInt32() ?? otherwise;
        return new GenerationDefaults
        {
            UseTokenizerTemplate = Given("use_tokenizer_template", Flag)?.GetBoolean() ?? None.UseTokenizerTemplate,
            Temperature = OfNumber("temperature", None.Temperature),
            TopP = OfNumber("top_p", None.TopP),
            TopK = OfWhole("top_k", backend.Contains("llama", StringComparison.OrdinalIgnoreCase) ? 40 : 0),
            MinP = OfNumber("min_p", 0),
            TypicalP = OfNumber("typical_p", None.TypicalP),
            Tfz = OfNumber("tfz", None.Tfz),
            RepeatPenalty = OfNumber("repeat_penalty", 0),
            RepeatLastN = OfWhole("repeat_last_n", 0),
            FrequencyPenalty = OfNumber("frequency_penalty", 0),
            PresencePenalty = OfNumber("presence_penalty", 0),
            Mirostat = OfWhole("mirostat", 0),
            MirostatEta = OfNumber("mirostat_eta", None.MirostatEta),
            MirostatTau = OfNumber("mirostat_tau", None.MirostatTau),
            MaxTokens = OfWhole("max_tokens", 0),
            Seed = OfWhole("seed", None.Seed),
            Batch = OfWhole("batch", None.Batch),
            NKeep = OfWhole("n_keep", 0),
            IgnoreEos = Given("ignore_eos", Flag)?.GetBoolean() ?? false,
            SystemPrompt = Given("system_prompt", Text)?.GetString() ?? "",
            Voice = Given("voice", Text)?.GetString() ?? "",
            StopWordsJson = Given("stopwords", Texts)?.GetRawText() ?? "",
        };
    }

    private static bool Is(JsonElement value, string kind) => kind switch
    {
        Number => value.ValueKind == JsonValueKind.Number && value.TryGetSingle(out var number) && float.IsFinite(number),
        Whole => value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out _),
        Flag => value.ValueKind is JsonValueKind.True or JsonValueKind.False,
        Text => value.ValueKind == JsonValueKind.String,
        _ => value.ValueKind == JsonValueKind.Array && value.EnumerateArray().All(item => item.ValueKind == JsonValueKind.String),
    };
}
