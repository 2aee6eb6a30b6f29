using Microsoft.AspNetCore.Http;
using ModelHost.Agent.Http;
using ModelHost.Core.Routing;

namespace ModelHost.Agent.Metering;

/// <summary>One request on its way through an engine and back, and what is counted of it: by the gateway, and at the public ports of nodes.</summary>
/// <param name="kind">The route it came by.</param>
/// <param name="route">Where it goes.</param>
/// <param name="body">What was asked, where that has been looked at.</param>
/// <param name="deadlines">Where its deadlines come from.</param>
public sealed class MeteredCall(GatewayRoute kind, ModelRoute route, RequestBody? body, CallDeadlines deadlines)
{
    /// <summary>Counts of the answer; fed by whoever passes its bytes on.</summary>
    internal UsageScanner Usage;

    /// <summary>The route it came by.</summary>
    public GatewayRoute Kind => kind;

    /// <summary>Where it goes.</summary>
    public ModelRoute Route => route;

    /// <summary>Whether the count of a stream was asked for on the way alone, so that the client does not get it.</summary>
    internal bool StripsUsage => body is { AsksForUsage: true };

    /// <summary>Whether the answer is a stream of events.</summary>
    public bool IsStream { get; internal set; }

    /// <summary>Events that carried output.</summary>
    internal long OutputEvents { get; set; }

    /// <summary>Whether the engine broke off or fell silent after the client had been sent a part.</summary>
    public bool IsBroken { get; internal set; }

    /// <summary>Ends the call when its answer does not begin in time, or is not whole in time; null: its caller sees to that.</summary>
    public CancellationTokenSource? Deadline { get; set; }

    /// <summary>Ends a stream in which nothing comes any more.</summary>
    internal CancellationTokenSource? Silence { get; set; }

    /// <summary>Passes the head of an answer on, and lets its body be counted as it is read.</summary>
    /// <param name="answer">What the engine answered.</param>
    /// <param name="to">Whom it is passed on to.</param>
    /// <param name="silence">How long nothing may come in a stream after its first byte.</param>
    public void Pass(HttpResponseMessage answer, HttpContext to, TimeSpan silence)
    {
        IsStream = EngineHttp.CopyAnswer(answer, to);
        if (IsStream)
            Silence = deadlines.Get();
        if (IsStream || "application/json".Equals(answer.Content.Headers.ContentType?.MediaType, StringComparison.OrdinalIgnoreCase))
            answer.Content = new MeteredContent(answer.Content, this, silence);
    }

    /// <summary>Ends the call, whose answer is not read any more.</summary>
    /// <param name="isPassed">Whether its answer was passed on to what came as its end.</param>
    /// <param name="status">The status that it was answered with.</param>
    /// <returns>What it used.</returns>
    /// <remarks>
    /// An engine tells its count at the end. Of a stream that did not get there, or whose engine tells none, the events passed on are counted,
    /// each as one token: an engine sends one for each, or, when it is behind, one for several. What the prompt had is not known then unless the
    /// engine told it at the beginning, as messages do, and not guessed.
    /// </remarks>
    public UsageCount End(bool isPassed, int status)
    {
        deadlines.Return(Deadline);
        deadlines.Return(Silence);
        (Deadline, Silence) = (null, null);
        var isWhole = isPassed && !IsBroken;
        var (prompt, completion) = Used(isWhole);
        return new UsageCount(1, isWhole ? 0 : 1, isWhole && status >= StatusCodes.Status400BadRequest ? 1 : 0, prompt, completion);
    }

    /// <summary>The tokens that it used.</summary>
    /// <param name="isWhole">Whether its answer was passed on to its end.</param>
    internal (long Prompt, long Completion) Used(bool isWhole)
    {
        var (prompt, completion) = (Usage.PromptTokens, Usage.CompletionTokens);
        var isTold = Usage.HasUsage && (isWhole || kind.Shape != AnswerShape.Messages);
        return isTold || !IsStream ? (prompt, completion) : (prompt, Math.Max(completion, OutputEvents - kind.EventsWithoutOutput));
    }
}
