using System.Collections.Frozen;

namespace ModelHost.Simulator.Text;

/// <summary>The tokens that stand for whole pieces of text; all other text is cut into groups of bytes.</summary>
internal static class Vocabulary
{
    /// <summary>Ids below are free, as special tokens are elsewhere.</summary>
    public const int FirstId = 1000;

    private const string Words =
        "the of and to in is it that for with as on are by this be from at or an have not can which one all their will more when there " +
        "each about how many then these some would other into has two could been its now people than first water long little very after " +
        "just where most know back much before also around another came come work three word must because does part even place well such " +
        "here take why things help put years different away again off went old number great tell men say small every found still between " +
        "name should home big give air line set own under read last never us left end along while might next sound below saw something " +
        "thought both few those always looked show large often together asked house world going want school important until form food " +
        "keep children feet land side without boy once animals life enough took sometimes four head above kind began almost live page got " +
        "earth need far hand high year mother light parts country father let night following picture being study second eyes soon times";

    private static readonly string[] Plain = [.. Words.Split(' ').Distinct()];

    private static readonly string[] Special = ["<|im_start|>", "<|im_end|>", ".", ",", "\n", "system", "user", "assistant", "tool"];

    /// <summary>Texts by id less <see cref="FirstId"/>: specials, then each word bare, after a blank, capital, and capital after a blank.</summary>
    public static IReadOnlyList<string> Texts { get; } =
        [.. Special, .. Plain.SelectMany(word => new[] { word, " " + word, Capital(word), " " + Capital(word) })];

    public static int WordCount => Plain.Length;

    public static FrozenDictionary<string, int> Ids { get; } =
        Texts.Select((text, index) => (text, index)).ToFrozenDictionary(entry => entry.text, entry => FirstId + entry.index, StringComparer.Ordinal);

    /// <summary>The text of a word in one of its four forms (bit 0: after a blank, bit 1: capital).</summary>
    public static string Word(int word, int form) => Texts[Special.Length + (word * 4) + form];

    private static string Capital(string word) => char.ToUpperInvariant(word[0]) + word[1..];
}
