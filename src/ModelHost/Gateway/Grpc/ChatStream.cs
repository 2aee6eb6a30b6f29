using System.Text;
using System.Text.Json;
using ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>A chat completion in chunks. Text that may yet turn out to be a call is held back until that is known.</summary>
internal sealed class ChatStream(BackendCall call, GenerationRequest generation, ToolUse? tools)
{
    private const int LongestCall = 1024 * 1024; // characters; longer text is no call
    private const int Decides = 64; // characters after which it is known whether a text begins as a call

    private readonly AnswerReader _reader = new();
    private readonly CallAssembly _calls = new();
    private readonly StringBuilder _held = new();
    private bool _holds = tools is not null;
    private bool _hasBegun;

    /// <summary>Sends it.</summary>
    public async Task SendAsync()
    {
        using var events = new EventWriter(call, "chat.completion.chunk");
        await foreach (var piece in call.StreamAsync(generation.Options, _reader))
        {
            await BeginAsync(events);
            if (piece.Reasoning.Length > 0)
                await DeltaAsync(events, json => json.WriteString("reasoning", piece.Reasoning));
            foreach (var delta in piece.Calls)
                await CallAsync(events, delta);
            await ContentAsync(events, piece);
        }
        await BeginAsync(events);
        await ReleaseAsync(events);
        var reason = _calls.Count > 0 ? ChatTranslation.CallReason(tools) : Predictions.FinishReason(generation.Options, _reader);
        await ChunkAsync(events, reason, null, _ => { });
        await events.EndAsync(generation.IncludesUsage ? call.Usage(_reader) : null);
    }

    private async Task BeginAsync(EventWriter events)
    {
        if (_hasBegun)
            return;
        _hasBegun = true;
        await DeltaAsync(events, json =>
        {
            json.WriteString("role", "assistant");
            json.WriteNull("content");
        });
    }

    private async Task ContentAsync(EventWriter events, AnswerPiece piece)
    {
        if (_holds && piece.Content.Length > 0)
        {
            var isDecided = _held.Length >= Decides;
            _held.Append(piece.Content);
            if (_held.Length <= LongestCall && (isDecided || ToolText.MayBeCall(_held.ToString(0, Math.Min(_held.Length, Decides)))))
                return;
            _holds = false;
            piece = piece with { Content = _held.ToString() };
        }
        var logprobs = generation.Logprobs ? piece.Logprobs : null;
        if (piece.Content.Length > 0 || logprobs is not null)
            await ChunkAsync(events, null, logprobs, json => json.WriteString("content", piece.Content));
    }

    /// <summary>What was held back is whole.</summary>
    private async Task ReleaseAsync(EventWriter events)
    {
        if (!_holds || _held.Length == 0)
            return;
        var content = _held.ToString();
        // a backend that tells calls itself writes none as text
        var calls = _calls.Count > 0 ? [] : ToolText.Read(content, tools!.Functions, out content);
        if (content.Length > 0)
            await DeltaAsync(events, json => json.WriteString("content", content));
        foreach (var delta in CallAssembly.Pieces(calls))
            await CallAsync(events, delta);
    }

    private Task CallAsync(EventWriter events, ToolCallDelta delta)
    {
        var (isFirst, id, name) = _calls.Take(delta);
        if (tools is { IsLegacy: true })
        {
            return _calls.Count > 1 ? Task.CompletedTask : DeltaAsync(events, json =>
            {
                json.WriteStartObject("function_call");
                WriteFunction(json, isFirst ? name : null, delta.Arguments);
                json.WriteEndObject();
            });
        }
        return DeltaAsync(events, json =>
        {
            json.WriteStartArray("tool_calls");
            json.WriteStartObject();
            json.WriteNumber("index", delta.Index);
            if (isFirst)
            {
                json.WriteString("id", id);
                json.WriteString("type", "function");
            }
            json.WriteStartObject("function");
            WriteFunction(json, isFirst ? name : null, delta.Arguments);
            json.WriteEndObject();
            json.WriteEndObject();
            json.WriteEndArray();
        });
    }

    private static void WriteFunction(Utf8JsonWriter json, string? name, string arguments)
    {
        if (name is not null)
            json.WriteString("name", name);
        json.WriteString("arguments", arguments);
    }

    private static Task DeltaAsync(EventWriter events, Action<Utf8JsonWriter> delta) => ChunkAsync(events, null, null, delta);

    private static Task ChunkAsync(EventWriter events, string? reason, JsonElement? logprobs, Action<Utf8JsonWriter> delta) => events.ChoiceAsync(reason, logprobs, json =>
    {
        json.WriteStartObject("delta");
        delta(json);
        json.WriteEndObject();
    });
}
