using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>A request of <c>/v1/responses</c>, whose members stand in its answer again.</summary>
internal sealed record ResponsesRequest
{
    private static readonly string[] Tiers = ["auto", "default", "flex", "scale", "priority"];

    private static readonly string[] Truncations = ["auto", "disabled"];

    private ResponsesRequest(JsonElement body) => Body = body;

    /// <summary>The body, which outlives the reading.</summary>
    public JsonElement Body { get; }

    public required string Id { get; init; }

    public required bool Background { get; init; }

    public required bool Store { get; init; }

    public required GenerationRequest Generation { get; init; }

    /// <summary>The messages of the prompt, those of earlier responses among them, without instructions: what the next response builds on.</summary>
    public required JsonElement Messages { get; init; }

    /// <summary>Reads a request.</summary>
    /// <param name="body">The body.</param>
    /// <param name="parser">Reads the chat that it stands for.</param>
    /// <param name="options">Of the server.</param>
    /// <param name="stores">The server keeps responses.</param>
    /// <param name="history">Gives the messages that end with an earlier response; null when there is no such response.</param>
    public static ResponsesRequest Read(JsonElement body, RequestParser parser, ServerOptions options, bool stores, Func<string, JsonElement?> history)
    {
        var background = body.Flag("background");
        var store = body.Flag("store", otherwise: true);
        if (background && !store)
            throw ApiException.Shape("body", "value_error", "Value error, background can only be used when `store` is true");
        if (body.Field("prompt") is not null)
            throw ApiException.Bad("prompt template is not supported", "prompt");
        OneOf(body, "service_tier", Tiers);
        OneOf(body, "truncation", Truncations);
        if (body.Field("input") is not { } input)
            throw ApiException.Shape("body.input", "missing", "Field required");
        parser.Model(body);
        if (background && !stores)
            throw Invalid(400, "This vLLM engine does not support `store=True` and therefore does not support the background mode. " +
                "To enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server.", "background");
        if (body.Field("text") is { ValueKind: JsonValueKind.Object } text && text.Field("format") is { ValueKind: JsonValueKind.Object } format
            && format.Text("type") == "json_object")
            throw new ApiException(501, "NotImplementedError", "json_object is not supported");

        var chat = new ChatBuilder();
        chat.Copy(body, "model", "temperature", "top_p", "top_k", "stream", "parallel_tool_calls", "seed", "cache_salt");
        if (body.Text("previous_response_id") is { } previous)
            foreach (var message in (history(previous) ?? throw NotFound(previous)).EnumerateArray())
                chat.Add(JsonObject.Create(message)!);
        Input(input, chat);
        var messages = chat.Snapshot();
        if (body.Text("instructions") is { Length: > 0 } instructions)
            chat.Precede("system", instructions);
        Tools(body, chat, ToolChoice.CanChoose(options));
        var most = body.Integer("max_output_tokens");
        if (most < 1)
            throw ApiException.Bad($"max_tokens must be at least 1, got {most}.", "max_tokens");
        if (body.Field("include") is { ValueKind: JsonValueKind.Array } include
            && include.EnumerateArray().Any(item => item.ValueKind == JsonValueKind.String && item.GetString() == "message.output_text.logprobs"))
        {
            chat.Request["logprobs"] = true;
            chat.Copy(body, "top_logprobs");
        }
        var generation = parser.Chat(chat.Take());
        return new(body.Clone())
        {
            Id = body.Text("request_id") ?? $"resp_{Guid.NewGuid():N}",
            Background = background,
            Store = store && stores,
            Generation = generation with { MaxTokens = Math.Min(most ?? int.MaxValue, generation.MaxTokens) },
            Messages = messages,
        };
    }

    public static ApiException NotFound(string id) => Invalid(404, $"Response with id '{id}' not found.", "response_id");

    public static ApiException Invalid(int status, string message, string parameter) => new(status, "invalid_request_error", message, parameter);

    private static void OneOf(JsonElement body, string name, string[] known)
    {
        if (body.Text(name) is { } value && !known.Contains(value))
            throw ApiException.Shape("body." + name, "literal_error", $"Input should be one of {string.Join(", ", known)}");
    }

    private static void Input(JsonElement input, ChatBuilder chat)
    {
        if (input.ValueKind == JsonValueKind.String)
        {
            chat.Add("user", input.GetString()!);
            return;
        }
        if (input.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape("body.input", "string_type", "Input should be a valid string");
        var index = 0;
        foreach (var item in input.EnumerateArray())
            Item(item, chat, string.Create(CultureInfo.InvariantCulture, $"body.input.{index++}"));
    }

    private static void Item(JsonElement item, ChatBuilder chat, string at)
    {
        if (item.ValueKind != JsonValueKind.Object)
            throw ApiException.Shape(at, "dict_type", "Input should be a valid dictionary");
        switch (item.Text("type"))
        {
            case null or "message" when item.Text("role") is { } role:
                chat.Add(role, Content(item, "content", at));
                break;
            case "function_call":
                chat.Add(new JsonObject
                {
                    ["role"] = "assistant",
                    ["content"] = item.Text("arguments") ?? throw ApiException.Shape(at + ".arguments", "missing", "Field required"),
                });
                break;
            case "function_call_output":
                chat.Add("tool", Content(item, "output", at));
                break;
            case "reasoning":
                chat.Add("assistant", Content(item, "content", at));
                break;
            default:
                throw ApiException.Shape(at, "value_error", "Input should be a message, function_call, function_call_output or reasoning");
        }
    }

    private static string Content(JsonElement item, string member, string at) => item.Field(member) switch
    {
        null => "",
        { ValueKind: JsonValueKind.String } text => text.GetString()!,
        { ValueKind: JsonValueKind.Array } parts => string.Join('\n', parts.EnumerateArray().Select(part => part.ValueKind == JsonValueKind.Object
            ? part.Text("text") ?? "" : throw ApiException.Shape($"{at}.{member}", "dict_type", "Input should be a valid dictionary"))),
        _ => throw ApiException.Shape($"{at}.{member}", "string_type", "Input should be a valid string"),
    };

    /// <summary>Tools other than functions run in a tool server, and there is none.</summary>
    private static void Tools(JsonElement body, ChatBuilder chat, bool canChoose)
    {
        var choice = body.Field("tool_choice") switch
        {
            null => "auto",
            { ValueKind: JsonValueKind.String } mode when mode.GetString() is "auto" or "none" or "required" => mode.GetString()!,
            { ValueKind: JsonValueKind.Object } named => named.Text("type") == "function" ? ChatBuilder.Function(named.Text("name"), null) : (JsonNode)"auto",
            _ => throw ApiException.Shape("body.tool_choice", "literal_error", "Input should be 'none', 'auto' or 'required'"),
        };
        if (body.Field("tools") is not { } tools)
            return;
        if (tools.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape("body.tools", "list_type", "Input should be a valid list");
        var functions = new JsonArray();
        foreach (var tool in tools.EnumerateArray())
        {
            if (tool.ValueKind != JsonValueKind.Object || tool.Field("type") is null)
                throw ApiException.Shape("body.tools", "union_tag_not_found", "Unable to extract tag using discriminator type");
            if (tool.Text("type") == "function")
                functions.Add((JsonNode)ChatBuilder.Function(tool.Text("name") ?? throw ApiException.Shape("body.tools.name", "missing", "Field required"), tool.Field("parameters")));
        }
        // unlike in chat, a call that the server would not recognize is no error: it stays text
        if (functions.Count == 0 || (!canChoose && choice is JsonValue && choice.GetValue<string>() == "auto"))
            return;
        (chat.Request["tools"], chat.Request["tool_choice"]) = (functions, choice);
    }
}
