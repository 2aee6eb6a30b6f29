using ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>An answer that is there as a whole.</summary>
/// <param name="Reader">What was told with it.</param>
/// <param name="Piece">All of it.</param>
internal sealed record Prediction(AnswerReader Reader, AnswerPiece Piece);

/// <summary>Has backends answer prompts.</summary>
internal static class Predictions
{
    // as LocalAI does: some backends answer nothing at times
    private const int TriesAfterNothing = 5;

    /// <summary>Has a prompt answered at once.</summary>
    public static async Task<Prediction> PredictAsync(this BackendCall call, PredictOptions options)
    {
        for (var tries = 0; ; tries++)
        {
            var reply = await call.AskAsync((backend, cancellationToken) => backend.PredictAsync(options, null, cancellationToken));
            if (reply.ChatDeltas.All(delta => delta is { Content: "", ReasoningContent: "", ToolCalls.Count: 0 }))
                reply.ChatDeltas.Clear(); // nothing is told apart: the text is all there is
            var reader = new AnswerReader();
            var piece = reader.Take(reply);
            piece = piece with { Content = piece.Content + reader.End() };
            call.PromptTokens += reader.PromptTokens;
            call.CompletionTokens += reader.Tokens;
            if (piece is not { Content: "", Reasoning: "", Calls.Count: 0 } || tries == TriesAfterNothing)
                return new Prediction(reader, piece);
        }
    }

    /// <summary>Has a prompt answered piece by piece, and counts the pieces.</summary>
    public static async IAsyncEnumerable<AnswerPiece> StreamAsync(this BackendCall call, PredictOptions options, AnswerReader reader)
    {
        await foreach (var reply in call.StreamAsync((backend, cancellationToken) => backend.PredictStreamAsync(options, null, cancellationToken)))
        {
            var piece = reader.Take(reply);
            (call.PromptTokens, call.CompletionTokens, call.Pieces) = (reader.PromptTokens, reader.Tokens, reader.Pieces);
            yield return piece;
        }
        if (reader.End() is { Length: > 0 } rest)
            yield return new AnswerPiece(rest, "", [], null);
    }

    /// <summary>Why an answer ended that calls nothing.</summary>
    public static string FinishReason(PredictOptions options, AnswerReader reader) => options.Tokens > 0 && reader.Tokens >= options.Tokens ? "length" : "stop";
}
