namespace ModelHost.Simulator.Text;

/// <summary>A token that could have come.</summary>
internal readonly record struct Candidate(int Id, string Text, double Logprob);

/// <summary>How likely tokens were: the one that came is always the likeliest, and each further one half as likely as the one before.</summary>
internal static class Likelihood
{
    /// <summary>What the end of an answer is called.</summary>
    public const string EndOfText = "<|im_end|>";

    /// <summary>The token that came and the likeliest others.</summary>
    /// <param name="token">Its text; empty at the end of an answer.</param>
    /// <param name="position">Its place in the text.</param>
    /// <param name="count">Tokens in all; -1 stands for all there are.</param>
    public static IEnumerable<Candidate> At(string token, int position, int count)
    {
        token = token.Length == 0 ? EndOfText : token;
        var hash = TextSource.Hash(token, (ulong)position);
        // from 0.3 to 0.5, so that all together stay below 1
        var logprob = Math.Round(Math.Log(0.3 + (hash % 1000 / 5000.0)), 4);
        yield return new(Tokenizer.Encode(token)[0], token, logprob);
        var (texts, left) = (Vocabulary.Texts, (count < 0 ? Vocabulary.Texts.Count : count) - 1);
        for (var i = 0; left > 0 && i < texts.Count; i++)
        {
            var other = (int)((hash + (ulong)i) % (ulong)texts.Count);
            if (texts[other] == token)
                continue;
            logprob = Math.Round(logprob - 0.6931, 4);
            yield return new(Vocabulary.FirstId + other, texts[other], logprob);
            left--;
        }
    }
}
