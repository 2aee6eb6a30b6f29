using System.Text;
using ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>
/// The prompt of a chat for models without a template of their own: each message on lines of its own under its role, and the role that is to speak next.
/// </summary>
internal static class PlainPrompt
{
    /// <summary>Where an answer ends that goes on to speak for the other side.</summary>
    public const string Stop = "\nuser:";

    /// <summary>Puts it together.</summary>
    /// <param name="messages">The chat.</param>
    /// <param name="tools">What may be called; null: nothing.</param>
    public static string Of(IEnumerable<Message> messages, ToolUse? tools)
    {
        var prompt = new StringBuilder();
        if (tools is not null)
        {
            prompt.Append("system: These functions can be called, by an answer that is nothing but JSON: {\"name\": NAME, \"arguments\": OBJECT}.");
            if (!tools.IsForced)
                prompt.Append(" To answer without a call, call \"").Append(ToolText.Answer).Append("\" with {\"message\": TEXT}.");
            foreach (var function in tools.Callable)
            {
                prompt.Append("\n- ").Append(function.Name).Append(": ").Append(function.Description.ReplaceLineEndings(" "));
                if (function.Parameters.ValueKind == System.Text.Json.JsonValueKind.Object)
                    prompt.Append(" Arguments: ").Append(function.Parameters.GetRawText().ReplaceLineEndings(" "));
            }
            prompt.Append('\n');
        }
        foreach (var message in messages)
            prompt.Append(message.Role).Append(": ").Append(message.Content).Append(message.ToolCalls).Append('\n');
        return prompt.Append("assistant:").ToString();
    }
}
