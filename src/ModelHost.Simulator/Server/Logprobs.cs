using System.Globalization;
using System.Text;
using System.Text.Json;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary>Writes likelihoods, which chat, completions and prompts have each in their own shape.</summary>
internal static class Logprobs
{
    /// <summary>The member of a choice of chat.</summary>
    public static void Chat(Utf8JsonWriter json, int? top, Sequence sequence, int start, int end)
    {
        if (top is not { } count)
        {
            json.WriteNull("logprobs"u8);
            return;
        }
        json.WriteStartObject("logprobs"u8);
        json.WriteStartArray("content"u8);
        Tokens(json, count, sequence, start, end);
        json.WriteEndArray();
        json.WriteEndObject();
    }

    /// <summary>One object for each token, with its text, likelihood, the likeliest tokens, and the bytes of all of them unless told otherwise.</summary>
    public static void Tokens(Utf8JsonWriter json, int top, Sequence sequence, int start, int end, bool withBytes = true)
    {
        for (var at = start; at < end; at++)
        {
            var candidates = Candidates(sequence.Token(at), at, top);
            json.WriteStartObject();
            Token(json, candidates[0], withBytes);
            json.WriteStartArray("top_logprobs"u8);
            foreach (var candidate in top == 0 ? [] : candidates)
            {
                json.WriteStartObject();
                Token(json, candidate, withBytes);
                json.WriteEndObject();
            }
            json.WriteEndArray();
            json.WriteEndObject();
        }
    }

    /// <summary>The member of a choice of completions: four lists, which begin with the prompt's tokens when it is repeated.</summary>
    public static void Completion(Utf8JsonWriter json, int? top, Sequence sequence, int start, int end, bool repeats)
    {
        if (top is not { } count)
        {
            json.WriteNull("logprobs"u8);
            return;
        }
        var withPrompt = repeats && start == 0;
        var entries = new List<(int Offset, IReadOnlyList<Candidate> Candidates)>();
        if (withPrompt)
            Prompt(sequence.Prompt, count, entries);
        // a repeated prompt shifts the answer, in later chunks too
        var shift = repeats ? sequence.Prompt.Text.Length : 0;
        for (var at = start; at < end; at++)
            entries.Add((shift + sequence.Offset(at), Candidates(sequence.Token(at), at, count)));
        json.WriteStartObject("logprobs"u8);
        json.WriteStartArray("text_offset"u8);
        foreach (var (offset, _) in entries)
            json.WriteNumberValue(offset);
        json.WriteEndArray();
        json.WriteStartArray("token_logprobs"u8);
        for (var i = 0; i < entries.Count; i++)
            if (withPrompt && i == 0)
                json.WriteNullValue();
            else
                json.WriteNumberValue(entries[i].Candidates[0].Logprob);
        json.WriteEndArray();
        json.WriteStartArray("tokens"u8);
        foreach (var (_, candidates) in entries)
            json.WriteStringValue(candidates[0].Text);
        json.WriteEndArray();
        json.WriteStartArray("top_logprobs"u8);
        for (var i = 0; i < entries.Count; i++)
        {
            if (withPrompt && i == 0)
            {
                json.WriteNullValue();
                continue;
            }
            json.WriteStartObject();
            foreach (var candidate in entries[i].Candidates)
                json.WriteNumber(candidate.Text, candidate.Logprob);
            json.WriteEndObject();
        }
        json.WriteEndArray();
        json.WriteEndObject();
    }

    /// <summary>The list for a prompt, by token id; nothing comes before the first token, so it has none.</summary>
    public static void OfPrompt(Utf8JsonWriter json, int? top, Prompt prompt)
    {
        if (top is not { } count)
        {
            json.WriteNull("prompt_logprobs"u8);
            return;
        }
        var position = 0;
        json.WriteStartArray("prompt_logprobs"u8);
        foreach (var token in Tokenizer.Encode(prompt.Text))
        {
            if (position++ == 0)
            {
                json.WriteNullValue();
                continue;
            }
            var rank = 1;
            json.WriteStartObject();
            foreach (var candidate in Candidates(Tokenizer.Decode([token]), position, count))
            {
                json.WriteStartObject((rank == 1 ? token : candidate.Id).ToString(CultureInfo.InvariantCulture));
                json.WriteNumber("logprob"u8, candidate.Logprob);
                json.WriteNumber("rank"u8, rank++);
                json.WriteString("decoded_token"u8, candidate.Text);
                json.WriteEndObject();
            }
            json.WriteEndObject();
        }
        json.WriteEndArray();
    }

    private static void Prompt(Prompt prompt, int top, List<(int Offset, IReadOnlyList<Candidate> Candidates)> entries)
    {
        var offset = 0;
        foreach (var token in Tokenizer.Encode(prompt.Text))
        {
            var text = Tokenizer.Decode([token]);
            entries.Add((offset, Candidates(text, entries.Count, top)));
            offset += text.Length;
        }
    }

    private static Candidate[] Candidates(string token, int position, int top) => [.. Likelihood.At(token, position, top == 0 ? 1 : top)];

    private static void Token(Utf8JsonWriter json, in Candidate candidate, bool withBytes)
    {
        json.WriteString("token"u8, candidate.Text);
        json.WriteNumber("logprob"u8, candidate.Logprob);
        if (!withBytes)
            return;
        json.WriteStartArray("bytes"u8);
        foreach (var value in Encoding.UTF8.GetBytes(candidate.Text))
            json.WriteNumberValue(value);
        json.WriteEndArray();
    }
}
