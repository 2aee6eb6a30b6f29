using System.Buffers;
using System.Collections.Frozen;
using System.Text;

namespace ModelHost.Simulator.Text;

/// <summary>
/// A splitter that anybody can predict: known words are one token, other text takes one token for every three UTF-8 bytes of a piece.
/// It is reversible, so that <c>/detokenize</c> gives back what <c>/tokenize</c> was given.
/// </summary>
internal static class Tokenizer
{
    private const int BytesPerToken = 3;

    private static readonly FrozenDictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> Known =
        Vocabulary.Ids.GetAlternateLookup<ReadOnlySpan<char>>();

    public static int Count(ReadOnlySpan<char> text)
    {
        var count = 0;
        while (!text.IsEmpty)
        {
            var piece = text[..PieceLength(text)];
            count += IsShort(piece) || Known.ContainsKey(piece) ? 1 : (Encoding.UTF8.GetByteCount(piece) + BytesPerToken - 1) / BytesPerToken;
            text = text[piece.Length..];
        }
        return count;
    }

    public static List<int> Encode(ReadOnlySpan<char> text)
    {
        var tokens = new List<int>();
        while (!text.IsEmpty)
        {
            var piece = text[..PieceLength(text)];
            if (Known.TryGetValue(piece, out var id))
                tokens.Add(id);
            else
                EncodeBytes(piece, tokens);
            text = text[piece.Length..];
        }
        return tokens;
    }

    /// <summary>The text of one token or more; ids that no text has become U+FFFD.</summary>
    public static string Decode(IEnumerable<int> tokens)
    {
        var bytes = new ArrayBufferWriter<byte>();
        foreach (var token in tokens)
        {
            var length = token >> 24;
            if (token >= Vocabulary.FirstId && token - Vocabulary.FirstId < Vocabulary.Texts.Count)
                Encoding.UTF8.GetBytes(Vocabulary.Texts[token - Vocabulary.FirstId], bytes);
            else if (length is >= 1 and <= BytesPerToken)
                for (var i = 0; i < length; i++)
                    bytes.Write([(byte)(token >> (8 * i))]);
            else
                bytes.Write("\uFFFD"u8);
        }
        return Encoding.UTF8.GetString(bytes.WrittenSpan);
    }

    /// <summary>One key for every <paramref name="blockSize"/> tokens of a text, each made of all tokens up to there.</summary>
    /// <param name="text">The text.</param>
    /// <param name="tokens">Its tokens, which decide how many keys there are.</param>
    /// <param name="blockSize">Tokens of a block.</param>
    /// <param name="seed">What else two texts must have in common for their keys to be the same.</param>
    public static ulong[] BlockKeys(ReadOnlySpan<char> text, int tokens, int blockSize, ulong seed)
    {
        if (tokens < blockSize)
            return [];
        var keys = new ulong[tokens / blockSize];
        var (key, done) = (seed, 0);
        Span<byte> bytes = stackalloc byte[MaxPiece * 3];
        while (!text.IsEmpty && done < keys.Length * blockSize)
        {
            var piece = text[..PieceLength(text)];
            text = text[piece.Length..];
            if (IsShort(piece))
            {
                var packed = 0;
                foreach (var character in piece)
                    packed = (packed << 8) | character;
                Next((piece.Length << 24) | packed);
                continue;
            }
            if (Known.TryGetValue(piece, out var id))
            {
                Next(id);
                continue;
            }
            var count = Encoding.UTF8.GetBytes(piece, bytes);
            for (var start = 0; start < count && done < keys.Length * blockSize; start += BytesPerToken)
                Next(Token(bytes[start..Math.Min(start + BytesPerToken, count)]));
        }
        // token ids that are no text of their own tokenize to fewer
        while (done < keys.Length * blockSize)
            Next(0);
        return keys;

        void Next(int token)
        {
            key = (key ^ (uint)token) * 0x9E37_79B9_7F4A_7C15;
            key ^= key >> 29;
            if (++done % blockSize == 0)
                keys[(done / blockSize) - 1] = key;
        }
    }

    private static void EncodeBytes(ReadOnlySpan<char> piece, List<int> tokens)
    {
        Span<byte> bytes = stackalloc byte[MaxPiece * 3];
        bytes = bytes[..Encoding.UTF8.GetBytes(piece, bytes)];
        for (var start = 0; start < bytes.Length; start += BytesPerToken)
            tokens.Add(Token(bytes[start..Math.Min(start + BytesPerToken, bytes.Length)]));
    }

    /// <summary>One token whether it is known or not, which saves looking it up: most pieces are blanks, points and small words.</summary>
    private static bool IsShort(ReadOnlySpan<char> piece) => piece.Length == 1 || (piece.Length <= BytesPerToken && Ascii.IsValid(piece));

    private static int Token(ReadOnlySpan<byte> bytes)
    {
        var token = bytes.Length << 24;
        for (var i = 0; i < bytes.Length; i++)
            token |= bytes[i] << (8 * i);
        return token;
    }

    private const int MaxPiece = 64;

    /// <summary>A special token, a run of letters or digits with at most one blank before it, or a single other character.</summary>
    private static int PieceLength(ReadOnlySpan<char> text)
    {
        if (text.StartsWith("<|im_", StringComparison.Ordinal) && text.IndexOf("|>", StringComparison.Ordinal) is > 0 and < 12 and var end)
            return end + 2;
        var start = text[0] == ' ' && text.Length > 1 && char.IsLetterOrDigit(text[1]) ? 1 : 0;
        var length = start;
        while (length < text.Length && length < MaxPiece && char.IsLetterOrDigit(text[length]))
            length++;
        if (length > start)
            return length;
        // the halves of a surrogate pair stay together
        return char.IsHighSurrogate(text[0]) && text.Length > 1 ? 2 : 1;
    }
}
