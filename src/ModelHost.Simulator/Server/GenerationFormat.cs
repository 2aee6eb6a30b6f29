using System.Text.Json;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>The members that stand in every answer to one request.</summary>
/// <param name="Id">The answer's id.</param>
/// <param name="Created">Its time, in seconds since 1970.</param>
/// <param name="Fingerprint">The server's; null: it tells none.</param>
/// <param name="PromptTokensDetails">Usage tells how many tokens of the prompt were cached.</param>
/// <param name="CompletionTokensDetails">Usage tells how many tokens of the answer were reasoning.</param>
internal readonly record struct AnswerHead(string Id, long Created, string? Fingerprint, bool PromptTokensDetails, bool CompletionTokensDetails = false);

/// <summary>How one kind of request is answered, whole and in a stream. Those that keep state are made anew for each request.</summary>
internal abstract class GenerationFormat
{
    public abstract string IdPrefix { get; }

    /// <summary>A stream in which nothing comes may have comments.</summary>
    public virtual bool TakesComments => false;

    /// <summary>The answer to a request without stream.</summary>
    public abstract void Whole(Utf8JsonWriter json, in AnswerHead head, Generation generation);

    /// <summary>What a stream begins with, before the engine has done anything.</summary>
    public virtual void Accepted(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
    }

    /// <summary>What comes just before the first token of a stream.</summary>
    public virtual void Opening(ResponseBuffer buffer, in AnswerHead head, Generation generation)
    {
    }

    /// <summary>New text of one choice, or its end.</summary>
    public abstract void Chunk(ResponseBuffer buffer, in AnswerHead head, Generation generation, Sequence sequence, in Piece piece);

    /// <summary>What a stream ends with after its last token.</summary>
    public abstract void Closing(ResponseBuffer buffer, in AnswerHead head, Generation generation);

    /// <summary>What a stream ends with when the engine could not go on.</summary>
    /// <param name="buffer">Takes the events.</param>
    /// <param name="error">What happened.</param>
    /// <param name="flat">Errors have the shape of old releases.</param>
    /// <returns>False when the connection breaks instead.</returns>
    public abstract bool Failed(ResponseBuffer buffer, ApiException error, bool flat);

    /// <summary>The body of a refusal.</summary>
    /// <param name="json">Takes the members.</param>
    /// <param name="error">What is wrong.</param>
    /// <param name="flat">Errors have the shape of old releases.</param>
    public virtual void Refusal(Utf8JsonWriter json, ApiException error, bool flat) => Answers.ErrorMembers(json, error, flat);
}
