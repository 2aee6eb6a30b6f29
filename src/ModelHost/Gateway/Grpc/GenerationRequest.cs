using System.Globalization;
using System.Text.Json;
using ModelHost.Core.Routing;
using ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>What chats and texts have in common: how an answer is generated, and how it is told.</summary>
internal sealed class GenerationRequest
{
    private const int MostStops = 64;
    private const int MostChoices = 16;
    private const int MostLogprobs = 20;

    private GenerationRequest(PredictOptions options) => Options = options;

    /// <summary>What the backend is asked, as far as it does not depend on the prompt.</summary>
    public PredictOptions Options { get; }

    /// <summary>Whether the answer is a stream of events.</summary>
    public bool Streams { get; private init; }

    /// <summary>Whether a stream tells its count at the end.</summary>
    public bool IncludesUsage { get; private init; }

    /// <summary>Answers to one prompt.</summary>
    public int Choices { get; private init; }

    /// <summary>Whether likelihoods are told.</summary>
    public bool Logprobs => Options.Logprobs > 0;

    /// <summary>Reads it.</summary>
    /// <param name="call">The call, for its fields and the defaults of its deployment.</param>
    /// <param name="random">Gives seeds.</param>
    public static GenerationRequest Read(BackendCall call, Random random)
    {
        var (request, defaults) = (call.Request, call.Route.Defaults);
        var streams = request.Flag("stream") ?? false;
        var choices = request.Whole("n", 1, MostChoices) ?? 1;
        if (streams && choices > 1)
            throw RefusedRequestException.Field("n", "must be 1 for a stream");
        var options = new PredictOptions
        {
            Temperature = request.Number("temperature", 0, 100) ?? defaults.Temperature,
            TopP = request.Number("top_p", 0, 1) ?? defaults.TopP,
            TopK = request.Whole("top_k", -1) ?? defaults.TopK,
            MinP = request.Number("min_p", 0, 1) ?? defaults.MinP,
            TypicalP = request.Number("typical_p", 0, 1) ?? defaults.TypicalP,
            TailFreeSamplingZ = request.Number("tfz", 0, 100) ?? defaults.Tfz,
            Penalty = request.Number("repeat_penalty", 0, 100) ?? defaults.RepeatPenalty,
            Repeat = request.Whole("repeat_last_n", -1) ?? defaults.RepeatLastN,
            FrequencyPenalty = request.Number("frequency_penalty", -100, 100) ?? defaults.FrequencyPenalty,
            PresencePenalty = request.Number("presence_penalty", -100, 100) ?? defaults.PresencePenalty,
            Mirostat = request.Whole("mirostat", 0, 2) ?? defaults.Mirostat,
            MirostatETA = request.Number("mirostat_eta", 0, 100) ?? defaults.MirostatEta,
            MirostatTAU = request.Number("mirostat_tau", 0, 1000) ?? defaults.MirostatTau,
            Tokens = request.Whole("max_completion_tokens", 0) ?? request.Whole("max_tokens", 0) ?? defaults.MaxTokens,
            Seed = Seed(request, defaults, random),
            NKeep = request.Whole("n_keep", -1) ?? defaults.NKeep,
            IgnoreEOS = request.Flag("ignore_eos") ?? defaults.IgnoreEos,
            NegativePrompt = request.Text("negative_prompt") ?? "",
            NegativePromptScale = request.Number("negative_prompt_scale") ?? 0,
            Batch = defaults.Batch,
            PromptCacheAll = true,
            MMap = true,
            CorrelationId = call.CorrelationId,
            ModelIdentity = call.Identity,
        };
        options.StopPrompts.Add(defaults.StopWords());
        var stops = request.Texts("stop");
        if (stops.Length > MostStops)
            throw RefusedRequestException.Field("stop", $"has more than {MostStops} texts");
        options.StopPrompts.Add(stops.Where(stop => stop.Length > 0));
        if (request.Fields("logit_bias") is { } bias)
            options.LogitBias = bias.Element.GetRawText();
        ReadLogprobs(request, options);
        ReadMetadata(request, options);
        return new GenerationRequest(options)
        {
            Streams = streams,
            Choices = choices,
            IncludesUsage = streams && request.Fields("stream_options")?.Flag("include_usage") == true,
        };
    }

    /// <summary>The form that an answer is to have; empty: any.</summary>
    public static string ReadGrammar(RequestFields request)
    {
        if (request.Text("grammar") is { Length: > 0 } grammar)
            return grammar;
        if (request.Fields("response_format") is not { } format)
            return "";
        switch (format.RequiredText("type"))
        {
            case "text":
                return "";
            case "json_object":
                return JsonGrammar.AnyObject;
            case "json_schema":
                var schema = RequestFields.Of(format.Required("json_schema"), format.PathOf("json_schema"));
                return JsonGrammar.Of(schema.Required("schema"), schema.PathOf("schema"));
            default:
                throw RefusedRequestException.Field(format.PathOf("type"), "must be text, json_object or json_schema");
        }
    }

    // OpenAI has seeds of 64 bits, backends of 32: the same one leads to the same one
    private static int Seed(RequestFields request, GenerationDefaults defaults, Random random)
    {
        long seed = defaults.Seed;
        if (request.Find("seed") is { } value && (value.ValueKind != JsonValueKind.Number || !value.TryGetInt64(out seed)))
            throw RefusedRequestException.Field("seed", "must be a whole number");
        return seed < 0 ? random.Next() : (int)(seed & int.MaxValue);
    }

    // chats have a switch and a number, texts a number alone
    private static void ReadLogprobs(RequestFields request, PredictOptions options)
    {
        if (request.Find("logprobs") is { ValueKind: JsonValueKind.True or JsonValueKind.False } flag)
            options.Logprobs = flag.ValueKind == JsonValueKind.True ? 1 : 0;
        else
            options.Logprobs = request.Whole("logprobs", 0, MostLogprobs) ?? 0;
        options.TopLogprobs = request.Whole("top_logprobs", 0, MostLogprobs) ?? 0;
        if (options.TopLogprobs > 0 && options.Logprobs == 0)
            options.Logprobs = 1;
    }

    private static void ReadMetadata(RequestFields request, PredictOptions options)
    {
        foreach (var pair in request.Fields("metadata")?.Element.EnumerateObject().ToArray() ?? [])
            options.Metadata[pair.Name] = RequestFields.TextOf(pair.Value, $"metadata.{pair.Name}");
        // these are written last: a client's map cannot say otherwise
        var template = request.Fields("chat_template_kwargs");
        if ((request.Flag("enable_thinking") ?? template?.Flag("enable_thinking")) is { } thinks)
            options.Metadata["enable_thinking"] = thinks ? "true" : "false";
        if (request.Text("reasoning_effort") is { Length: > 0 } effort)
            options.Metadata["reasoning_effort"] = effort.ToLower(CultureInfo.InvariantCulture);
        if (template is { } given)
            options.Metadata["chat_template_kwargs"] = given.Element.GetRawText();
    }
}
