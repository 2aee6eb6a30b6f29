using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace ModelHost.Simulator.Requests;

/// <summary>Reads the requests of <c>/v1/messages</c> and turns them into those of chat.</summary>
internal static class MessagesRequest
{
    private static readonly string[] Blocks = ["text", "image", "tool_use", "tool_result", "tool_reference", "thinking", "redacted_thinking"];

    /// <summary>The chat request that a request stands for.</summary>
    /// <param name="body">The body.</param>
    /// <param name="counting">Only its tokens are to be counted: what concerns the answer is ignored.</param>
    public static JsonElement ToChat(JsonElement body, bool counting)
    {
        if (body.Text("model") is not { Length: > 0 })
            throw body.Field("model") is null ? ApiException.Shape("body.model", "missing", "Field required")
                : ApiException.Shape("body.model", "value_error", "Value error, Model is required");
        var chat = new ChatBuilder();
        chat.Copy(body, "model", "chat_template_kwargs");
        Messages(body, chat);
        if (!counting)
            Sampling(body, chat);
        Tools(body, chat);
        return chat.Take();
    }

    private static void Sampling(JsonElement body, ChatBuilder chat)
    {
        var maxTokens = body.Integer("max_tokens") ?? throw ApiException.Shape("body.max_tokens", "missing", "Field required");
        if (maxTokens <= 0)
            throw ApiException.Shape("body.max_tokens", "value_error", "Value error, max_tokens must be positive");
        chat.Request["max_completion_tokens"] = maxTokens;
        chat.Copy(body, "temperature", "top_p", "top_k");
        chat.CopyAs(body, "stop_sequences", "stop");
        if (!body.Flag("stream"))
            return;
        chat.Request["stream"] = true;
        chat.Request["stream_options"] = new JsonObject { ["include_usage"] = true, ["continuous_usage_stats"] = true };
    }

    private static void Messages(JsonElement body, ChatBuilder chat)
    {
        if (body.Field("messages") is not { } messages)
            throw ApiException.Shape("body.messages", "missing", "Field required");
        if (messages.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape("body.messages", "list_type", "Input should be a valid list");
        var read = messages.EnumerateArray().Select(Message).ToArray();
        // all that has the role system stands at the beginning, wherever it came
        var system = new StringBuilder();
        if (body.Field("system") is { } instructions)
            foreach (var block in Content(instructions, "body.system"))
                system.Append(block.Text("text"));
        foreach (var (_, blocks) in read.Where(message => message.Role == "system"))
            foreach (var block in blocks)
                system.Append(block.Text("text"));
        if (system.Length > 0)
            chat.Add("system", system.ToString());
        foreach (var (role, blocks) in read.Where(message => message.Role != "system"))
            Add(chat, role, blocks);
    }

    private static (string Role, IReadOnlyList<JsonElement> Blocks) Message(JsonElement message, int index)
    {
        var at = string.Create(CultureInfo.InvariantCulture, $"body.messages.{index}");
        if (message.ValueKind != JsonValueKind.Object)
            throw ApiException.Shape(at, "model_attributes_type", "Input should be a valid dictionary or object to extract fields from");
        var role = message.Field("role") is { ValueKind: JsonValueKind.String } given ? given.GetString() : null;
        // what one client calls its own two roles counts as the user's
        role = role is "ctx" or "msg" ? "user" : role;
        if (role is not ("user" or "assistant" or "system"))
            throw ApiException.Shape(at + ".role", "literal_error", "Input should be 'user', 'assistant' or 'system'");
        return (role, Content(message.Field("content") ?? throw ApiException.Shape(at + ".content", "missing", "Field required"), at + ".content"));
    }

    /// <summary>The blocks of a content; a text alone is one block.</summary>
    private static IReadOnlyList<JsonElement> Content(JsonElement content, string at)
    {
        if (content.ValueKind == JsonValueKind.String)
            return [JsonSerializer.SerializeToElement(new JsonObject { ["type"] = "text", ["text"] = content.GetString() })];
        if (content.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape(at, "string_type", "Input should be a valid string");
        foreach (var block in content.EnumerateArray())
            if (block.ValueKind != JsonValueKind.Object || block.Field("type") is not { ValueKind: JsonValueKind.String } type || !Blocks.Contains(type.GetString()))
                throw ApiException.Shape(at + ".type", "literal_error", $"Input should be one of {string.Join(", ", Blocks)}");
        return [.. content.EnumerateArray()];
    }

    /// <summary>One message becomes one of chat, and one more for each result of a tool in it.</summary>
    private static void Add(ChatBuilder chat, string role, IReadOnlyList<JsonElement> blocks)
    {
        var (text, calls) = (new List<string>(), new JsonArray());
        foreach (var block in blocks)
            switch (block.Text("type"))
            {
                case "text":
                    text.Add(block.Text("text") ?? "");
                    break;
                case "tool_use":
                    calls.Add((JsonNode)new JsonObject { ["id"] = block.Text("id"), ["function"] = new JsonObject { ["name"] = block.Text("name") } });
                    break;
                case "tool_result" when role == "user":
                    chat.Add("tool", Result(block));
                    break;
                case "tool_result":
                    text.Add("Tool result: " + Result(block));
                    break;
            }
        if (text.Count == 0 && role == "user")
            return;
        var message = new JsonObject { ["role"] = role, ["content"] = string.Join('\n', text) };
        if (calls.Count > 0)
            message["tool_calls"] = calls;
        chat.Add(message);
    }

    private static string Result(JsonElement block) => block.Field("content") switch
    {
        null => "",
        { ValueKind: JsonValueKind.String } text => text.GetString()!,
        { ValueKind: JsonValueKind.Array } parts => string.Join('\n', parts.EnumerateArray()
            .Where(part => part.ValueKind == JsonValueKind.Object && part.Text("type") == "text").Select(part => part.Text("text"))),
        _ => throw ApiException.Shape("body.messages.content", "string_type", "Input should be a valid string"),
    };

    private static void Tools(JsonElement body, ChatBuilder chat)
    {
        if (body.Field("tool_choice") is { } choice)
            chat.Request["tool_choice"] = Choice(choice);
        if (body.Field("tools") is not { } tools)
            return;
        if (tools.ValueKind != JsonValueKind.Array)
            throw ApiException.Shape("body.tools", "list_type", "Input should be a valid list");
        chat.Request["tools"] = new JsonArray([.. tools.EnumerateArray().Select((tool, index) =>
        {
            var at = string.Create(CultureInfo.InvariantCulture, $"body.tools.{index}");
            if (tool.ValueKind != JsonValueKind.Object)
                throw ApiException.Shape(at, "model_attributes_type", "Input should be a valid dictionary or object to extract fields from");
            var name = tool.Text("name") ?? throw ApiException.Shape(at + ".name", "missing", "Field required");
            return tool.Field("input_schema") is { ValueKind: JsonValueKind.Object } schema ? ChatBuilder.Function(name, schema)
                : throw ApiException.Shape(at + ".input_schema", "dict_type", "Input should be a valid dictionary");
        })]);
    }

    private static JsonNode Choice(JsonElement choice)
    {
        if (choice.ValueKind != JsonValueKind.Object)
            throw ApiException.Shape("body.tool_choice", "model_attributes_type", "Input should be a valid dictionary or object to extract fields from");
        return choice.Text("type") switch
        {
            "auto" => "auto",
            "any" => "required",
            "none" => "none",
            "tool" when choice.Text("name") is { Length: > 0 } name => ChatBuilder.Function(name, null),
            "tool" => throw ApiException.Shape("body.tool_choice", "value_error", "Value error, tool_choice.name is required when type is tool"),
            _ => throw ApiException.Shape("body.tool_choice.type", "literal_error", "Input should be 'auto', 'any', 'tool' or 'none'"),
        };
    }
}
