using System.Text.Json;

namespace ModelHost.Gateway.Grpc;

/// <summary>Text completions by way of a backend.</summary>
internal static class TextTranslation
{
    private const int MostPrompts = 64;

    /// <summary>Answers a request.</summary>
    public static async Task ServeAsync(BackendCall call)
    {
        var request = call.Request;
        var generation = GenerationRequest.Read(call, Random.Shared);
        var prompts = request.Texts("prompt");
        if (prompts.Length is 0 or > MostPrompts)
            throw RefusedRequestException.Field("prompt", prompts.Length == 0 ? "must be a text, or a list of texts" : $"has more than {MostPrompts} texts");
        if (generation.Streams && prompts.Length > 1)
            throw RefusedRequestException.Field("prompt", "must be one text for a stream");
        if (request.Text("suffix") is { Length: > 0 })
            throw RefusedRequestException.Field("suffix", "is not known to backends");
        var echo = request.Flag("echo") ?? false;
        generation.Options.Grammar = GenerationRequest.ReadGrammar(request);
        if (generation.Streams)
            await StreamAsync(call, generation, prompts[0], echo);
        else
            await AnswerAsync(call, generation, prompts, echo);
    }

    private static async Task AnswerAsync(BackendCall call, GenerationRequest generation, string[] prompts, bool echo)
    {
        var choices = new List<TextAnswerChoice>();
        AnswerReader? last = null;
        foreach (var prompt in prompts)
        {
            generation.Options.Prompt = prompt;
            for (var i = 0; i < generation.Choices; i++)
            {
                var (reader, piece) = await call.PredictAsync(generation.Options);
                choices.Add(new TextAnswerChoice(choices.Count, Predictions.FinishReason(generation.Options, reader), echo ? prompt + piece.Content : piece.Content)
                {
                    Logprobs = generation.Logprobs ? piece.Logprobs : null,
                });
                last = reader;
                generation.Options.Seed = (generation.Options.Seed + 1) & int.MaxValue; // or all choices were the same
            }
        }
        await call.AnswerAsync(
            new TextAnswer(call.CreatedAt, "text_completion", Guid.NewGuid().ToString(), call.Model, choices, call.Usage(last)), OpenAiAnswerJson.Readable.TextAnswer);
    }

    private static async Task StreamAsync(BackendCall call, GenerationRequest generation, string prompt, bool echo)
    {
        generation.Options.Prompt = prompt;
        var reader = new AnswerReader();
        using var events = new EventWriter(call, "text_completion");
        Task SendAsync(string text, string? reason, JsonElement? logprobs) => events.ChoiceAsync(reason, logprobs, json => json.WriteString("text", text));
        await foreach (var piece in call.StreamAsync(generation.Options, reader))
        {
            if (echo)
                await SendAsync(prompt, null, null);
            echo = false;
            if (piece.Content.Length > 0)
                await SendAsync(piece.Content, null, generation.Logprobs ? piece.Logprobs : null);
        }
        await SendAsync("", Predictions.FinishReason(generation.Options, reader), null);
        await events.EndAsync(generation.IncludesUsage ? call.Usage(reader) : null);
    }
}
