using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Where the events of a stream go.</summary>
internal interface IAnswerSink
{
    /// <summary>Cancelled when nobody waits for the answer any more.</summary>
    CancellationToken Gone { get; }

    ValueTask WriteAsync(ReadOnlyMemory<byte> events);

    /// <summary>Breaks off without an end.</summary>
    void Cut();
}

/// <summary>A client that waits.</summary>
internal sealed class ClientSink(HttpContext context) : IAnswerSink
{
    public CancellationToken Gone => context.RequestAborted;

    public async ValueTask WriteAsync(ReadOnlyMemory<byte> events) => await context.Response.BodyWriter.WriteAsync(events, Gone);

    public void Cut() => context.Abort();
}

/// <summary>Takes generations to their end and writes what they say, or fails as a knob wants.</summary>
internal sealed class AnswerWriter(ServerOptions options, TimeProvider time)
{
    /// <summary>Whether the comment has a fixed text is not known of vLLM; clients skip it whatever it says.</summary>
    private static readonly byte[] Comment = ": keep-alive\n\n"u8.ToArray();

    private readonly bool _flatErrors = options.Release.Has(Traits.FlatErrors);

    private readonly TimeSpan _commentInterval = options.CommentInterval;

    /// <summary>Answers a client, whole or in a stream as the request says.</summary>
    public async Task AnswerAsync(HttpContext context, GenerationFormat format, AnswerHead head, Generation generation)
    {
        var sink = new ClientSink(context);
        if (generation.Request.Stream)
        {
            await Answers.BeginStreamAsync(context);
            await StreamAsync(generation, format, head, sink);
        }
        else if (await RunAsync(generation, sink))
        {
            var buffer = ResponseBuffer.Rent();
            format.Whole(buffer.Json, head, generation);
            await Answers.JsonAsync(context, buffer);
            ResponseBuffer.Return(buffer);
        }
    }

    /// <summary>Runs to the end.</summary>
    /// <returns>False when there is nothing to answer, or nobody.</returns>
    /// <exception cref="ApiException">The engine could not go on.</exception>
    public async Task<bool> RunAsync(Generation generation, IAnswerSink sink)
    {
        if (generation.Failure != RequestFailure.None && await FailAsync(generation, sink))
            return false;
        if (generation.Outcome == Outcome.Running)
            await generation.RunAsync();
        return generation.Outcome switch
        {
            Outcome.Failed => throw ApiException.Internal(),
            Outcome.EngineDead => throw ApiException.EngineDead(),
            _ => generation.Outcome != Outcome.Disconnected,
        };
    }

    /// <summary>Writes the events of the whole answer as its tokens come.</summary>
    public async Task StreamAsync(Generation generation, GenerationFormat format, AnswerHead head, IAnswerSink sink)
    {
        var buffer = ResponseBuffer.Rent();
        format.Accepted(buffer, head, generation);
        await FlushAsync(buffer, sink);
        var sent = 0;
        while (await NextAsync(generation, format, sink))
        {
            if (generation.Failure != RequestFailure.None && sent >= options.Knobs.RequestFailureAfter && await FailAsync(generation, sink))
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
            await FlushAsync(buffer, sink);
        }
        if (generation.Outcome == Outcome.Disconnected)
            return;
        if (generation.Outcome == Outcome.Aborted)
            EmitAborted(buffer, format, head, generation, sent);
        if (generation.Outcome is not (Outcome.EngineDead or Outcome.Failed))
            format.Closing(buffer, head, generation);
        else if (!format.Failed(buffer, generation.Outcome == Outcome.Failed ? ApiException.Internal() : ApiException.EngineDead(), _flatErrors))
            sink.Cut();
        await FlushAsync(buffer, sink);
        ResponseBuffer.Return(buffer);
    }

    /// <summary>Waits for the next token, and lets the client know in between that somebody is there.</summary>
    private async ValueTask<bool> NextAsync(Generation generation, GenerationFormat format, IAnswerSink sink)
    {
        var next = generation.NextAsync();
        if (next.IsCompleted || _commentInterval == TimeSpan.Zero || !format.TakesComments)
            return await next;
        var token = next.AsTask();
        try
        {
            while (await Task.WhenAny(token, Task.Delay(_commentInterval, time, sink.Gone)) != token && !sink.Gone.IsCancellationRequested)
                await sink.WriteAsync(Comment);
        }
        catch (Exception e) when (e is OperationCanceledException or IOException)
        {
            // the client is gone, which ends the wait for the token too
        }
        return await token;
    }

    /// <summary>Does what a knob wants of this request.</summary>
    /// <returns>True when nothing more is to be written.</returns>
    private async Task<bool> FailAsync(Generation generation, IAnswerSink sink)
    {
        if (generation.Failure == RequestFailure.Cut)
            sink.Cut();
        if (generation.Failure == RequestFailure.Stall)
            await Task.Delay(Timeout.InfiniteTimeSpan, time, sink.Gone);
        if (generation.Failure == RequestFailure.Error)
            generation.Fail();
        return generation.Failure is RequestFailure.Cut or RequestFailure.Stall;
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

    private static async ValueTask FlushAsync(ResponseBuffer buffer, IAnswerSink sink)
    {
        if (buffer.Written.Length == 0)
            return;
        await sink.WriteAsync(buffer.Written);
        buffer.Clear();
    }
}
