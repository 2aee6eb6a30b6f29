using System.Buffers.Text;
using System.Text;
using System.Text.Json;
using ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>The messages of a chat as backends have them, and the media in them.</summary>
internal sealed class ChatRequest
{
    private const int MostMessages = 10_000;

    private ChatRequest()
    {
    }

    /// <summary>The messages.</summary>
    public List<Message> Messages { get; } = [];

    /// <summary>Images in base64, in the order of the messages.</summary>
    public List<string> Images { get; } = [];

    /// <summary>Videos in base64.</summary>
    public List<string> Videos { get; } = [];

    /// <summary>Sounds in base64.</summary>
    public List<string> Audios { get; } = [];

    /// <summary>Reads <c>messages</c>.</summary>
    public static ChatRequest Read(RequestFields request)
    {
        var chat = new ChatRequest();
        var messages = request.List("messages");
        if (messages.Length is 0 or > MostMessages)
            throw RefusedRequestException.Field("messages", messages.Length == 0 ? "must have at least one message" : $"has more than {MostMessages} messages");
        for (var i = 0; i < messages.Length; i++)
            chat.Messages.Add(chat.ReadMessage(RequestFields.Of(messages[i], $"messages[{i}]")));
        return chat;
    }

    private Message ReadMessage(RequestFields fields)
    {
        var role = fields.RequiredText("role");
        if (role.Length is 0 or > 64)
            throw RefusedRequestException.Field(fields.PathOf("role"), "must have 1 to 64 characters");
        var message = new Message
        {
            Role = role,
            Content = ReadContent(fields),
            Name = fields.Text("name") ?? "",
            ToolCallId = fields.Text("tool_call_id") ?? "",
            ReasoningContent = fields.Text("reasoning_content") ?? fields.Text("reasoning") ?? "",
        };
        if (fields.List("tool_calls") is { Length: > 0 })
            message.ToolCalls = fields.Required("tool_calls").GetRawText();
        else if (fields.Fields("function_call") is { } call)
            message.ToolCalls = $$"""[{"type":"function","function":{{call.Element.GetRawText()}}}]""";
        return message;
    }

    private string ReadContent(RequestFields message)
    {
        if (message.Find("content") is not { } content)
            return "";
        var at = message.PathOf("content");
        if (content.ValueKind == JsonValueKind.String)
            return RequestFields.TextOf(content, at);
        if (content.ValueKind != JsonValueKind.Array)
            throw RefusedRequestException.Field(at, "must be a text or a list of parts");
        var text = new StringBuilder();
        foreach (var (part, i) in content.EnumerateArray().Select((part, i) => (part, i)))
            ReadPart(RequestFields.Of(part, $"{at}[{i}]"), text);
        return text.ToString();
    }

    private void ReadPart(RequestFields part, StringBuilder text)
    {
        switch (part.RequiredText("type"))
        {
            case "text" or "input_text" or "output_text":
                text.Append(part.RequiredText("text"));
                break;
            case "refusal":
                text.Append(part.RequiredText("refusal"));
                break;
            case "image_url":
                Images.Add(ReadMedia(part, "image_url"));
                break;
            case "image":
                Images.Add(ReadMedia(part, "image"));
                break;
            case "video_url":
                Videos.Add(ReadMedia(part, "video_url"));
                break;
            case "video":
                Videos.Add(ReadMedia(part, "video"));
                break;
            case "audio_url":
                Audios.Add(ReadMedia(part, "audio_url"));
                break;
            case "audio":
                Audios.Add(ReadMedia(part, "audio"));
                break;
            case "input_audio":
                var audio = RequestFields.Of(part.Required("input_audio"), part.PathOf("input_audio"));
                Audios.Add(Base64Of(audio.RequiredText("data"), audio.PathOf("data")));
                break;
            default:
                throw RefusedRequestException.Field(part.PathOf("type"), "must be text, image_url, video_url, audio_url or input_audio");
        }
    }

    private static string ReadMedia(RequestFields part, string name)
    {
        var (value, at) = (part.Required(name), part.PathOf(name));
        if (value.ValueKind == JsonValueKind.Object)
            (value, at) = (new RequestFields(value, at).Required("url"), at + ".url");
        return Base64Of(RequestFields.TextOf(value, at), at);
    }

    // an address in a request would have the gateway ask, in its own network, whatever a client names: what is meant has to be in the request
    private static string Base64Of(string text, string at)
    {
        if (text.StartsWith("data:", StringComparison.OrdinalIgnoreCase))
        {
            var comma = text.IndexOf(',', StringComparison.Ordinal);
            if (comma < 0 || !text[..comma].EndsWith(";base64", StringComparison.OrdinalIgnoreCase))
                throw RefusedRequestException.Field(at, "must be in base64: data:TYPE;base64,…");
            text = text[(comma + 1)..];
        }
        else if (text.Contains("://", StringComparison.Ordinal))
        {
            throw RefusedRequestException.Field(at, "is an address, which is not fetched: send the data itself, as data:TYPE;base64,…");
        }
        return text.Length > 0 && Base64.IsValid(text) ? text : throw RefusedRequestException.Field(at, "is not valid base64");
    }
}
