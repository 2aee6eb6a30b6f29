using System.Globalization;
using System.Text;
using System.Text.Json;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Requests;

/// <summary>Turns request bodies into requests, in vLLM's order: shape, model, parameters, then length.</summary>
internal sealed class RequestParser(ServerOptions options, MemoryPlan plan, Adapters adapters)
{
    private const int DefaultCompletionTokens = 16;

    private const int MaxStops = 4;

    /// <summary>The likeliest tokens that a request may ask for.</summary>
    private int MaxLogprobs { get; } = (int)(options.Flags.Integer("max_logprobs") ?? 20);

    public GenerationRequest Chat(JsonElement body)
    {
        var messages = Messages(body);
        var (name, model) = Model(body);
        var calls = ToolChoice.Read(body, messages, options);
        var prompt = ChatPrompt(messages, body.Flag("add_generation_prompt", otherwise: true));
        var field = body.Field("max_completion_tokens") is null ? "max_tokens" : "max_completion_tokens";
        return Common(body, name, model, [prompt], field, body.Integer(field)) with
        {
            Calls = calls,
            Json = AnswerShape.Read(body),
            Reasons = options.Flags.Text("reasoning_parser") is { Length: > 0 }
                && (body.Field("chat_template_kwargs")?.Flag("enable_thinking", otherwise: true) ?? true),
            ShowReasoning = body.Flag("include_reasoning", otherwise: true),
            Logprobs = LogprobFields.OfChat(body, MaxLogprobs),
        };
    }

    public GenerationRequest Completion(JsonElement body)
    {
        var prompts = Prompts(body, "prompt");
        var (name, model) = Model(body);
        var maxTokens = body.Integer("max_tokens") ?? DefaultCompletionTokens;
        var echo = body.Flag("echo");
        var logprobs = LogprobFields.OfCompletion(body, MaxLogprobs);
        // the prompt alone: the engine still runs one step
        var request = Common(body, name, model, prompts, "max_tokens", echo && maxTokens == 0 ? 1 : maxTokens);
        return request with { Echo = echo, Logprobs = logprobs, PromptLogprobs = request.PromptLogprobs ?? (echo ? logprobs : null) };
    }

    /// <summary>Token ids in, token ids out.</summary>
    public GenerationRequest Tokens(JsonElement body)
    {
        if (body.Field("token_ids") is not { } ids)
            throw ApiException.Shape("body.token_ids", "missing", "Field required");
        if (ids.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape("body.token_ids", "list_type", "Input should be a valid list");
        if (body.Field("sampling_params") is not { } sampling)
            throw ApiException.Shape("body.sampling_params", "missing", "Field required");
        if (sampling.ValueKind != JsonValueKind.Object)
            throw ApiException.Shape("body.sampling_params", "dict_type", "Input should be a valid dictionary");
        var prompt = OfTokens(ids, "token_ids");
        if (prompt.Tokens == 0)
            throw ApiException.Bad("You must provide a prompt.", "token_ids");
        var (name, model) = Model(body);
        var logprobs = LogprobFields.OfCompletion(sampling, MaxLogprobs);
        return Streamed(body, Common(sampling, name, model, [prompt], "max_tokens", sampling.Integer("max_tokens")) with
        {
            Logprobs = logprobs,
            CacheSalt = body.Text("cache_salt"),
        });
    }

    /// <summary>The prompts of a completion, embedding or tokenize request: text, texts, token ids or lists of them.</summary>
    public static IReadOnlyList<Prompt> Prompts(JsonElement body, string field)
    {
        if (body.Field(field) is not { } value)
            throw ApiException.Shape("body." + field, "missing", "Field required");
        switch (value.ValueKind)
        {
            case JsonValueKind.String:
                return [OfText(value.GetString()!)];
            case JsonValueKind.Array when value.GetArrayLength() == 0:
                throw ApiException.Bad("You must provide a prompt.", field);
            case JsonValueKind.Array when value[0].ValueKind == JsonValueKind.Number:
                return [OfTokens(value, field)];
            case JsonValueKind.Array:
                return [.. value.EnumerateArray().Select(item => item.ValueKind switch
                {
                    JsonValueKind.String => OfText(item.GetString()!),
                    JsonValueKind.Array => OfTokens(item, field),
                    _ => throw ApiException.Shape("body." + field, "string_type", "Input should be a valid string"),
                })];
            default:
                throw ApiException.Shape("body." + field, "string_type", "Input should be a valid string");
        }
    }

    public static List<(string Role, string Content)> Messages(JsonElement body)
    {
        if (body.Field("messages") is not { } messages)
            throw ApiException.Shape("body.messages", "missing", "Field required");
        if (messages.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape("body.messages", "list_type", "Input should be a valid list");
        var read = new List<(string, string)>(messages.GetArrayLength());
        foreach (var message in messages.EnumerateArray())
        {
            var at = string.Create(CultureInfo.InvariantCulture, $"body.messages.{read.Count}");
            if (message.ValueKind != JsonValueKind.Object)
                throw ApiException.Shape(at, "dict_type", "Input should be a valid dictionary");
            if (message.Field("role") is not { } role)
                throw ApiException.Shape(at + ".role", "missing", "Field required");
            if (role.ValueKind != JsonValueKind.String)
                throw ApiException.Shape(at + ".role", "string_type", "Input should be a valid string");
            read.Add((role.GetString()!, Content(message, at)));
        }
        return read;
    }

    /// <summary>The template of the Qwen family; other models differ only in how many tokens surround a message.</summary>
    public static Prompt ChatPrompt(List<(string Role, string Content)> messages, bool generate)
    {
        var text = new StringBuilder();
        foreach (var (role, content) in messages)
            text.Append("<|im_start|>").Append(role).Append('\n').Append(content).Append("<|im_end|>\n");
        if (generate)
            text.Append("<|im_start|>assistant\n");
        return OfText(text.ToString());
    }

    /// <summary>The name to answer with, and the asked one.</summary>
    public (string Name, string Asked) Model(JsonElement body) => Model(body.Text("model"));

    /// <inheritdoc cref="Model(JsonElement)"/>
    public (string Name, string Asked) Model(string? asked)
    {
        if (asked is null || options.ServedNames.Contains(asked))
            return (options.ServedNames[0], options.ServedNames[0]);
        if (adapters.Has(asked))
            return (asked, asked);
        return options.SkipModelNameCheck ? (options.ServedNames[0], options.ServedNames[0]) : throw ApiException.UnknownModel(asked);
    }

    /// <summary>The adapter that a name asks for; null for the model itself.</summary>
    public string? Adapter(string asked) => adapters.Enabled && adapters.Has(asked) ? asked : null;

    public long MaxModelLength => plan.MaxModelLength;

    public void CheckLength(Prompt prompt, int output)
    {
        var limit = plan.MaxModelLength;
        if (prompt.Tokens + (long)output <= limit && (output > 0 || prompt.Tokens < limit))
            return;
        throw ApiException.Bad(output == 0 || prompt.Tokens >= limit
            ? $"This model's maximum context length is {limit} tokens. However, your request has {prompt.Tokens} input tokens. " +
                "Please reduce the length of the input messages."
            : $"This model's maximum context length is {limit} tokens. However, you requested {output} output tokens and your prompt contains " +
                $"{prompt.Tokens} input tokens, for a total of {prompt.Tokens + (long)output} tokens. Please reduce the length of the input prompt " +
                "or the number of requested output tokens.", options.Release.Has(Traits.NamesLongPrompt) ? "input_tokens" : null);
    }

    private GenerationRequest Common(
        JsonElement body, string name, string model, IReadOnlyList<Prompt> prompts, string maxTokensField, int? maxTokens)
    {
        Range(body, "temperature", value => value >= 0, "must be non-negative");
        Range(body, "top_p", value => value is > 0 and <= 1, "must be in (0, 1]");
        Range(body, "min_p", value => value is >= 0 and <= 1, "must be in [0, 1]");
        Range(body, "presence_penalty", value => value is >= -2 and <= 2, "must be in [-2, 2]");
        Range(body, "frequency_penalty", value => value is >= -2 and <= 2, "must be in [-2, 2]");
        var n = body.Integer("n") ?? 1;
        if (n is < 1 or > 16_384)
            throw ApiException.Bad(n < 1 ? $"n must be at least 1, got {n}." : $"n must be at most 16384, got {n}.", "n");
        if (maxTokens < 1)
            throw ApiException.Bad($"{maxTokensField} must be at least 1, got {maxTokens}.", maxTokensField);
        if (maxTokens > plan.MaxModelLength)
            throw ApiException.Bad(
                $"{maxTokensField}={maxTokens} cannot be greater than max_model_len={plan.MaxModelLength}. Please request fewer output tokens.", maxTokensField);
        if (body.Integer("priority") is { } priority and not 0 && options.Flags.Text("scheduling_policy") != "priority")
            throw ApiException.Bad($"Got priority {priority} but Priority scheduling is not enabled.");
        foreach (var prompt in prompts)
            CheckLength(prompt, maxTokens ?? 0);
        return Streamed(body, new()
        {
            Model = name,
            Adapter = Adapter(model),
            CacheSalt = body.Text("cache_salt"),
            Prompts = prompts,
            MaxTokens = maxTokens ?? (int)Math.Min(int.MaxValue, plan.MaxModelLength - prompts.Max(prompt => prompt.Tokens)),
            N = n,
            MinTokens = body.Integer("min_tokens") ?? 0,
            IgnoreEndOfText = body.Flag("ignore_eos"),
            Stop = Stop(body),
            IncludeStop = body.Flag("include_stop_str_in_output"),
            Seed = body.Integer("seed"),
            PromptLogprobs = LogprobFields.OfPrompt(body, MaxLogprobs),
        });
    }

    /// <summary>The request with what the body says about its stream.</summary>
    private GenerationRequest Streamed(JsonElement body, GenerationRequest request)
    {
        var stream = body.Flag("stream");
        var streamOptions = body.Field("stream_options");
        if (streamOptions is { ValueKind: not JsonValueKind.Object })
            throw ApiException.Shape("body.stream_options", "model_attributes_type", "Input should be a valid dictionary or object");
        if (streamOptions is not null && !stream)
            throw ApiException.Bad("Stream options can only be defined when `stream=True`.", "stream_options");
        var force = options.Flags.Switch("enable_force_include_usage");
        var includeUsage = force || (streamOptions?.Flag("include_usage", options.Release.Has(Traits.ImpliesUsage)) ?? false);
        return request with
        {
            Stream = stream,
            IncludeUsage = includeUsage,
            ContinuousUsage = includeUsage && (force || (streamOptions?.Flag("continuous_usage_stats") ?? false)),
        };
    }

    private static void Range(JsonElement body, string name, Func<double, bool> holds, string rule)
    {
        if (body.Number(name) is { } value && !holds(value))
            throw ApiException.Bad(string.Create(CultureInfo.InvariantCulture, $"{name} {rule}, got {value}."), name);
    }

    private string[] Stop(JsonElement body)
    {
        string[] stops = body.Field("stop") switch
        {
            null => [],
            { ValueKind: JsonValueKind.String } one => [one.GetString()!],
            { ValueKind: JsonValueKind.Array } many => [.. many.EnumerateArray().Select(item => item.ValueKind == JsonValueKind.String
                ? item.GetString()! : throw ApiException.Shape("body.stop", "string_type", "Input should be a valid string"))],
            _ => throw ApiException.Shape("body.stop", "string_type", "Input should be a valid string"),
        };
        if (stops.Length > MaxStops && options.Release.Has(Traits.LimitsStops))
            throw ApiException.Bad($"stop must have at most {MaxStops} strings, got {stops.Length}.", "stop");
        return stops.Contains("") ? throw ApiException.Bad("stop cannot contain an empty string.", "stop") : stops;
    }

    private static string Content(JsonElement message, string at)
    {
        if (message.Field("content") is not { } content)
            return "";
        if (content.ValueKind == JsonValueKind.String)
            return content.GetString()!;
        if (content.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape(at + ".content", "string_type", "Input should be a valid string");
        return string.Join('\n', content.EnumerateArray().Select(part => part.ValueKind switch
        {
            JsonValueKind.String => part.GetString()!,
            JsonValueKind.Object => part.Text("text") ?? "",
            _ => throw ApiException.Shape(at + ".content", "dict_type", "Input should be a valid dictionary"),
        }));
    }

    private static Prompt OfText(string text) => new(text, Tokenizer.Count(text));

    private static Prompt OfTokens(JsonElement ids, string field)
    {
        var tokens = new List<int>(ids.GetArrayLength());
        foreach (var id in ids.EnumerateArray())
            tokens.Add(id.ValueKind == JsonValueKind.Number && id.TryGetInt32(out var token) && token >= 0
                ? token : throw ApiException.Shape("body." + field, "int_type", "Input should be a valid integer"));
        return new(Tokenizer.Decode(tokens), tokens.Count);
    }
}
