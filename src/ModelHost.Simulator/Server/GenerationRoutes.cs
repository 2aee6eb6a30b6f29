using System.Globalization;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary>Text generation: chat, completions, messages and tokens, whole and streamed.</summary>
internal sealed class GenerationRoutes(ServerOptions options, RequestParser parser, Engine engine, AnswerWriter writer, TimeProvider time)
{
    private readonly ChatFormat _chat = new(options.Flags.Text("response_role") ?? "assistant", options.Release);
    private readonly CompletionFormat _completion = new();
    private readonly TokensFormat _tokens = new();
    private readonly string? _fingerprint = Fingerprint(options);
    private readonly bool _flatErrors = options.Release.Has(Traits.FlatErrors);

    public Task ChatAsync(HttpContext context) => AnswerAsync(context, _chat, parser.Chat);

    public Task CompletionAsync(HttpContext context) => AnswerAsync(context, _completion, parser.Completion);

    public Task TokensAsync(HttpContext context) => AnswerAsync(context, _tokens, parser.Tokens);

    public Task MessagesAsync(HttpContext context) =>
        AnswerAsync(context, new MessagesFormat(), body => parser.Chat(MessagesRequest.ToChat(body, counting: false)));

    public Task CountTokensAsync(HttpContext context) => RefusingAsync(context, new MessagesFormat(), async () =>
    {
        var tokens = await RequestBody.ReadAsync(context, body =>
        {
            var chat = MessagesRequest.ToChat(body, counting: true);
            parser.Model(chat);
            return RequestParser.ChatPrompt(RequestParser.Messages(chat), generate: true).Tokens;
        });
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteNumber("input_tokens"u8, tokens);
            json.WriteStartObject("context_management"u8);
            json.WriteNumber("original_input_tokens"u8, tokens);
            json.WriteEndObject();
        });
    });

    /// <summary>Answers a request whose body is JSON.</summary>
    private Task AnswerAsync(HttpContext context, GenerationFormat format, Func<JsonElement, GenerationRequest> read) =>
        RefusingAsync(context, format, async () => await AnswerAsync(context, format, await RequestBody.ReadAsync(context, read)));

    /// <summary>Writes refusals as the format has them.</summary>
    private async Task RefusingAsync(HttpContext context, GenerationFormat format, Func<Task> answer)
    {
        try
        {
            await answer();
        }
        catch (ApiException e) when (!context.Response.HasStarted)
        {
            await Answers.ObjectAsync(context, json => format.Refusal(json, e, _flatErrors), e.Status);
        }
    }

    /// <summary>Answers a request that has passed every check.</summary>
    private async Task AnswerAsync(HttpContext context, GenerationFormat format, GenerationRequest request)
    {
        var id = format.IdPrefix + RequestId(context);
        using var generation = engine.Start(request.ToRankOf(context), context.RequestAborted, id);
        var head = new AnswerHead(
            id, time.GetUtcNow().ToUnixTimeSeconds(), _fingerprint,
            options.Flags.Switch("enable_prompt_tokens_details"), options.Release.Has(Traits.CountsReasoning));
        await writer.AnswerAsync(context, format, head, generation);
    }

    public static string RequestId(HttpContext context) =>
        context.Request.Headers.TryGetValue("X-Request-Id", out var given) && given.ToString() is { Length: > 0 } id ? id : Guid.NewGuid().ToString("N");

    private static string? Fingerprint(ServerOptions options)
    {
        if (options.Flags.Text("fingerprint_mode") == "none" || !options.Release.Has(Traits.HasFingerprint))
            return null;
        var parallel = (options.TensorParallel > 1 ? $"-tp{options.TensorParallel}" : "") + (options.PipelineParallel > 1 ? $"-pp{options.PipelineParallel}" : "");
        var hash = (uint)(TextSource.Hash(options.Flags.ToString(), 0) >> 32);
        return string.Create(CultureInfo.InvariantCulture, $"vllm-{options.Knobs.Version}{parallel}-{hash:x8}");
    }
}
