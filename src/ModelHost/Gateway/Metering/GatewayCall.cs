using ModelHost.Core.Routing;

namespace ModelHost.Gateway.Metering;

/// <summary>One request on its way through an engine and back, and what is counted of it.</summary>
internal sealed class GatewayCall(GatewayRoute kind, ModelRoute route, RequestBody body)
{
    /// <summary>Counts of the answer; fed by whoever passes its bytes on.</summary>
    public UsageScanner Usage;

    /// <summary>The route it came by.</summary>
    public GatewayRoute Kind => kind;

    /// <summary>Where it goes.</summary>
    public ModelRoute Route => route;

    /// <summary>What was asked.</summary>
    public RequestBody Body => body;

    /// <summary>Whether the count of a stream was asked for by the gateway alone, so that the client does not get it.</summary>
    public bool StripsUsage => body.AsksForUsage;

    /// <summary>Whether the answer is a stream of events.</summary>
    public bool IsStream { get; set; }

    /// <summary>Events that carried output.</summary>
    public long OutputEvents { get; set; }

    /// <summary>Whether the engine broke off or fell silent after the client had been sent a part.</summary>
    public bool IsBroken { get; set; }

    /// <summary>Ends the call when its answer does not begin in time, or is not whole in time.</summary>
    public CancellationTokenSource? Deadline { get; set; }

    /// <summary>Ends a stream in which nothing comes any more.</summary>
    public CancellationTokenSource? Silence { get; set; }

    /// <summary>What the call used.</summary>
    /// <param name="isWhole">Whether its answer was passed on to its end.</param>
    /// <remarks>
    /// An engine tells its count at the end. Of a stream that did not get there, or whose engine tells none, the events passed on are counted,
    /// each as one token: an engine sends one for each, or, when it is behind, one for several. What the prompt had is not known then unless the
    /// engine told it at the beginning, as messages do, and not guessed.
    /// </remarks>
    public (long Prompt, long Completion) Used(bool isWhole)
    {
        var (prompt, completion) = (Usage.PromptTokens, Usage.CompletionTokens);
        var isTold = Usage.HasUsage && (isWhole || kind.Shape != AnswerShape.Messages);
        return isTold || !IsStream ? (prompt, completion) : (prompt, Math.Max(completion, OutputEvents - kind.EventsWithoutOutput));
    }
}
