using System.Globalization;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary>Text generation: chat and completions, whole and streamed.</summary>
internal sealed class GenerationRoutes(ServerOptions options, RequestParser parser, Engine engine, TimeProvider time)
{
    private readonly ChatFormat _chat = new(options.Flags.Text("response_role") ?? "assistant", options.Release);
    private readonly CompletionFormat _completion = new();
    private readonly string? _fingerprint = Fingerprint(options);
    private readonly bool _flatErrors = options.Release.Has(Traits.FlatErrors);

    public Task ChatAsync(HttpContext context) => AnswerAsync(context, _chat, parser.Chat);

    public Task CompletionAsync(HttpContext context) => AnswerAsync(context, _completion, parser.Completion);

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
            options.Flags.Switch("enable_prompt_tokens_details"));
        if (request.Stream)
            await StreamAsync(context, format, head, generation);
        else
            await WholeAsync(context, format, head, generation);
    }

    /// <summary>Does what a knob wants of this request.</summary>
    /// <returns>True when nothing more is to be written.</returns>
    private async Task<bool> FailAsync(HttpContext context, Generation generation)
    {
        if (generation.Failure == RequestFailure.Cut)
            context.Abort();
        if (generation.Failure == RequestFailure.Stall)
            await Task.Delay(Timeout.InfiniteTimeSpan, time, context.RequestAborted);
        if (generation.Failure == RequestFailure.Error)
            generation.Fail();
        return generation.Failure is RequestFailure.Cut or RequestFailure.Stall;
    }

    private async Task WholeAsync(HttpContext context, GenerationFormat format, AnswerHead head, Generation generation)
    {
        if (generation.Failure != RequestFailure.None && await FailAsync(context, generation))
            return;
        if (generation.Outcome == Outcome.Failed)
            throw ApiException.Internal();
        await generation.RunAsync();
        if (generation.Outcome == Outcome.EngineDead)
            throw ApiException.EngineDead();
        if (generation.Outcome == Outcome.Disconnected)
            return;
        var buffer = ResponseBuffer.Rent();
        format.Whole(buffer.Json, head, generation);
        await Answers.JsonAsync(context, buffer);
        ResponseBuffer.Return(buffer);
    }

    private async Task StreamAsync(HttpContext context, GenerationFormat format, AnswerHead head, Generation generation)
    {
        context.Response.ContentType = "text/event-stream; charset=utf-8";
        // the status is known now; the first event waits for the first token
        await context.Response.BodyWriter.FlushAsync(context.RequestAborted);
        var buffer = ResponseBuffer.Rent();
        format.Accepted(buffer, head, generation);
        if (buffer.Written.Length > 0)
            await FlushAsync(context, buffer);
        var sent = 0;
        while (await generation.NextAsync())
        {
            if (generation.Failure != RequestFailure.None && sent >= options.Knobs.RequestFailureAfter && await FailAsync(context, generation))
                return;
            if (generation.Outcome == Outcome.Failed)
                break;
            if (sent == 0)
                format.Opening(buffer, head, generation);
            // the first token goes at once, later ones in groups of --stream-interval, the end whenever it comes
            if (sent > 0 && generation.Step - sent < options.StreamInterval && generation.Outcome == Outcome.Running
                && !generation.Sequences.Any(sequence => sequence.Length == generation.Step))
                continue;
            foreach (var sequence in generation.Sequences)
                if (sent < sequence.Length)
                    Emit(buffer, format, head, generation, sequence, sent, generation.Done(sequence) == sequence.Length ? sequence.Finish : null);
            sent = generation.Step;
            await FlushAsync(context, buffer);
        }
        if (generation.Outcome == Outcome.Disconnected)
            return;
        if (generation.Outcome == Outcome.Aborted)
            EmitAborted(buffer, format, head, generation, sent);
        if (generation.Outcome is not (Outcome.EngineDead or Outcome.Failed))
            format.Closing(buffer, head, generation);
        else if (!format.Failed(buffer, generation.Outcome == Outcome.Failed ? ApiException.Internal() : ApiException.EngineDead(), _flatErrors))
            context.Abort();
        await FlushAsync(context, buffer);
        ResponseBuffer.Return(buffer);
    }

    private static void Emit(
        ResponseBuffer buffer, GenerationFormat format, in AnswerHead head, Generation generation, Sequence sequence, int sent, FinishReason? finish)
    {
        foreach (var piece in sequence.Pieces(sent, generation.Done(sequence), finish))
            format.Chunk(buffer, head, generation, sequence, piece);
    }

    private static void EmitAborted(ResponseBuffer buffer, GenerationFormat format, in AnswerHead head, Generation generation, int sent)
    {
        if (sent == 0)
            format.Opening(buffer, head, generation);
        foreach (var sequence in generation.Sequences)
            if (generation.Done(sequence) < sequence.Length)
                Emit(buffer, format, head, generation, sequence, Math.Min(sent, generation.Done(sequence)), FinishReason.Abort);
    }

    private static async ValueTask FlushAsync(HttpContext context, ResponseBuffer buffer)
    {
        await context.Response.BodyWriter.WriteAsync(buffer.Written, context.RequestAborted);
        buffer.Clear();
    }

    private static string RequestId(HttpContext context) =>
        context.Request.Headers.TryGetValue("X-Request-Id", out var given) && given.ToString() is { Length: > 0 } id ? id : Guid.NewGuid().ToString("N");

    private static string? Fingerprint(ServerOptions options)
    {
        if (options.Flags.Text("fingerprint_mode") == "none")
            return null;
        var parallel = (options.TensorParallel > 1 ? $"-tp{options.TensorParallel}" : "") + (options.PipelineParallel > 1 ? $"-pp{options.PipelineParallel}" : "");
        var hash = (uint)(TextSource.Hash(options.Flags.ToString(), 0) >> 32);
        return string.Create(CultureInfo.InvariantCulture, $"vllm-{options.Knobs.Version}{parallel}-{hash:x8}");
    }
}
