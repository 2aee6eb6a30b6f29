using System.Text.Json;

namespace ModelHost.Simulator.Requests;

/// <summary>Reads how many likely tokens a request wants to see.</summary>
internal static class LogprobFields
{
    /// <summary>Those of <c>top_logprobs</c>, which <c>logprobs</c> switches on; null when none are wanted.</summary>
    public static int? OfChat(JsonElement body, int most)
    {
        var (wanted, top) = (body.Flag("logprobs"), body.Integer("top_logprobs"));
        if (top is < 0 and not -1)
            throw ApiException.Bad("`top_logprobs` must be a positive value or -1.", "top_logprobs");
        if (top is not (null or 0) && !wanted)
            throw ApiException.Bad("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs");
        return wanted ? AtMost(top ?? 0, most, "sample", "logprobs") : null;
    }

    /// <summary>Those of <c>logprobs</c>, a number.</summary>
    public static int? OfCompletion(JsonElement body, int most) => body.Integer("logprobs") switch
    {
        null => null,
        < 0 and not -1 => throw ApiException.Bad("`logprobs` must be a positive value or -1.", "logprobs"),
        { } top => AtMost(top, most, "sample", "logprobs"),
    };

    /// <summary>Those of each token of the prompt.</summary>
    public static int? OfPrompt(JsonElement body, int most) => body.Integer("prompt_logprobs") switch
    {
        null => null,
        < 0 and not -1 => throw ApiException.Bad("`prompt_logprobs` must be a positive value or -1.", "prompt_logprobs"),
        not 0 when body.Flag("stream") => throw ApiException.Bad("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs"),
        { } top => AtMost(top, most, "prompt", "prompt_logprobs"),
    };

    /// <param name="top">What is asked; -1 is the whole vocabulary.</param>
    /// <param name="most">What the server allows; -1 is everything.</param>
    /// <param name="kind">What the likelihoods are of.</param>
    /// <param name="field">Who asked.</param>
    private static int AtMost(int top, int most, string kind, string field)
    {
        var asked = top < 0 ? Text.Vocabulary.Texts.Count : top;
        return most < 0 || asked <= most ? top
            : throw ApiException.Bad($"Requested {kind} logprobs of {asked}, which is greater than max allowed: {most}", field);
    }
}
