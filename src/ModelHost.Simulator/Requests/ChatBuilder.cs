using System.Text.Json;
using System.Text.Json.Nodes;

namespace ModelHost.Simulator.Requests;

/// <summary>Builds the chat request that a request of another API stands for: vLLM answers those by way of chat too.</summary>
internal sealed class ChatBuilder
{
    private readonly JsonArray _messages = [];

    /// <summary>The request; members may be set until it is taken.</summary>
    public JsonObject Request { get; } = [];

    public void Add(string role, string content) => Add(new JsonObject { ["role"] = role, ["content"] = content });

    /// <summary>Adds a message in the form of chat.</summary>
    public void Add(JsonObject message) => _messages.Add((JsonNode)message);

    /// <summary>Puts a message before all others.</summary>
    public void Precede(string role, string content) => _messages.Insert(0, new JsonObject { ["role"] = role, ["content"] = content });

    /// <summary>The messages up to now.</summary>
    public JsonElement Snapshot() => JsonSerializer.SerializeToElement(_messages);

    /// <summary>Passes members on as they are.</summary>
    public void Copy(JsonElement body, params ReadOnlySpan<string> names)
    {
        foreach (var name in names)
            CopyAs(body, name, name);
    }

    /// <summary>Passes a member on under another name.</summary>
    public void CopyAs(JsonElement body, string from, string to)
    {
        if (body.Field(from) is { } value)
            Request[to] = Node(value);
    }

    public static JsonObject Function(string? name, JsonElement? parameters) => new()
    {
        ["type"] = "function",
        ["function"] = new JsonObject { ["name"] = name, ["parameters"] = parameters is { } schema ? Node(schema) : null },
    };

    public JsonElement Take()
    {
        Request["messages"] = _messages;
        return JsonSerializer.SerializeToElement(Request);
    }

    private static JsonNode? Node(JsonElement value) => JsonNode.Parse(value.GetRawText());
}
