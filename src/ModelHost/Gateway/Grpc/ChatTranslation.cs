using ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>Chat completions by way of a backend.</summary>
internal static class ChatTranslation
{
    private static readonly ToolFunction Answer = new(ToolText.Answer, "", System.Text.Json.JsonDocument.Parse(
        """{"type":"object","properties":{"message":{"type":"string"}},"required":["message"]}""").RootElement, "tools");

    /// <summary>Answers a request.</summary>
    public static async Task ServeAsync(BackendCall call)
    {
        var generation = GenerationRequest.Read(call, Random.Shared);
        var tools = ToolUse.Read(call.Request);
        Fill(generation.Options, ChatRequest.Read(call.Request), tools, call);
        if (generation.Streams)
            await new ChatStream(call, generation, tools).SendAsync();
        else
            await AnswerAsync(call, generation, tools);
    }

    private static void Fill(PredictOptions options, ChatRequest chat, ToolUse? tools, BackendCall call)
    {
        var defaults = call.Route.Defaults;
        var grammar = GenerationRequest.ReadGrammar(call.Request);
        if (defaults.SystemPrompt.Length > 0 && chat.Messages.All(message => message.Role is not ("system" or "developer")))
            chat.Messages.Insert(0, new Message { Role = "system", Content = defaults.SystemPrompt });
        options.Images.Add(chat.Images);
        options.Videos.Add(chat.Videos);
        options.Audios.Add(chat.Audios);
        if (tools is not null)
            (options.Tools, options.ToolChoice) = (tools.Json, tools.ChoiceJson);
        if (defaults.UseTokenizerTemplate)
        {
            options.UseTokenizerTemplate = true;
            options.Messages.Add(chat.Messages);
            options.Grammar = tools is null ? grammar : ""; // the model's template says how its calls are written
            return;
        }
        options.Prompt = PlainPrompt.Of(chat.Messages, tools);
        options.StopPrompts.Add(PlainPrompt.Stop);
        options.Grammar = tools is null ? grammar : JsonGrammar.OfCalls(tools.IsForced ? tools.Callable : [.. tools.Callable, Answer], tools.AllowsSeveral);
    }

    private static async Task AnswerAsync(BackendCall call, GenerationRequest generation, ToolUse? tools)
    {
        var choices = new List<ChatAnswerChoice>();
        AnswerReader? last = null;
        while (choices.Count < generation.Choices)
        {
            var prediction = await call.PredictAsync(generation.Options);
            choices.Add(Choice(choices.Count, prediction, generation, tools));
            last = prediction.Reader;
            generation.Options.Seed = (generation.Options.Seed + 1) & int.MaxValue; // or all choices were the same
        }
        await call.AnswerAsync(
            new ChatAnswer(call.CreatedAt, "chat.completion", Guid.NewGuid().ToString(), call.Model, choices, call.Usage(last)),
            OpenAiAnswerJson.Readable.ChatAnswer);
    }

    private static ChatAnswerChoice Choice(int index, Prediction prediction, GenerationRequest generation, ToolUse? tools)
    {
        var piece = prediction.Piece;
        var content = piece.Content;
        var assembly = new CallAssembly();
        IEnumerable<ToolCallDelta> pieces = piece.Calls;
        if (tools is not null && piece.Calls.Count == 0)
            pieces = CallAssembly.Pieces(ToolText.Read(content, tools.Functions, out content));
        foreach (var delta in pieces)
            assembly.Take(delta);
        var calls = assembly.Whole();
        var message = new ChatAnswerMessage("assistant", content.Length > 0 || calls.Count == 0 ? content : null)
        {
            Reasoning = piece.Reasoning.Length > 0 ? piece.Reasoning : null,
            ToolCalls = calls.Count > 0 && tools is not { IsLegacy: true } ? calls : null,
            FunctionCall = calls.Count > 0 && tools is { IsLegacy: true } ? calls[0].Function : null,
        };
        var reason = calls.Count == 0 ? Predictions.FinishReason(generation.Options, prediction.Reader) : CallReason(tools);
        return new ChatAnswerChoice(index, reason, message) { Logprobs = generation.Logprobs ? piece.Logprobs : null };
    }

    /// <summary>Why an answer ended that calls something.</summary>
    public static string CallReason(ToolUse? tools) => tools is { IsLegacy: true } ? "function_call" : "tool_calls";
}
