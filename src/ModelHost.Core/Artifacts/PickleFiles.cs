using System.Buffers.Binary;
using System.Text;

namespace ModelHost.Core.Artifacts;

/// <summary>
/// Tells files that Python runs as a program when it loads them. It errs on the side of code: what looks like a pickle is one. A file that is none of
/// these may still be loaded by something that runs code; this keeps out the usual way.
/// </summary>
public static class PickleFiles
{
    /// <summary>Bytes of a file's beginning that <see cref="ByBeginning"/> wants to see, if it has so many.</summary>
    public const int BeginningBytes = 512;

    private const int ProtocolOpcode = 0x80, LatestProtocol = 5;
    // the opcodes of pickletools that may come first after the protocol
    private const string FirstOpcodes = "(.FGIJKLMNSTUVXBC]})\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0094\u0095\u0096cgPQ";

    private static readonly string[] s_extensions = [".pt", ".pth", ".pt2", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pdparams", ".mar"];

    /// <summary>Whether a name alone says so. <c>.bin</c> does not: GGML's files have it too, and their beginning tells.</summary>
    public static bool ByName(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        return s_extensions.Any(extension => path.EndsWith(extension, StringComparison.OrdinalIgnoreCase))
            || path[(path.LastIndexOf('/') + 1)..] is var name
                && name.StartsWith("pytorch_model", StringComparison.OrdinalIgnoreCase) && name.EndsWith(".bin", StringComparison.OrdinalIgnoreCase);
    }

    /// <summary>Whether the first bytes of a file are those of a pickle, or of a zip file as PyTorch writes it.</summary>
    public static bool ByBeginning(ReadOnlySpan<byte> beginning)
    {
        if (beginning.Length < 2)
            return false;
        if (beginning[0] == ProtocolOpcode && beginning[1] is >= 1 and <= LatestProtocol)
            return !IsSafetensors(beginning) && (beginning.Length == 2 || FirstOpcodes.Contains((char)beginning[2], StringComparison.Ordinal));
        return IsTorchZip(beginning) || IsTextPickle(beginning);
    }

    // its length of the header may look like a protocol: 80 02 .. 00 00 00 00 00 {
    private static bool IsSafetensors(ReadOnlySpan<byte> beginning) =>
        beginning.Length > 8 && beginning[4..8].IndexOfAnyExcept((byte)0) < 0 && beginning[8] == '{';

    private static bool IsTorchZip(ReadOnlySpan<byte> beginning)
    {
        // the first entry's name stands in its local header (APPNOTE 4.3.7)
        if (beginning.Length < 30 || !beginning.StartsWith("PK\u0003\u0004"u8))
            return false;
        var length = Math.Min(BinaryPrimitives.ReadUInt16LittleEndian(beginning[26..]), beginning.Length - 30);
        return beginning.Slice(30, length).EndsWith(".pkl"u8);
    }

    // protocol 0 has no mark: it begins with the name of what is called, or with a container that is remembered as 0
    private static bool IsTextPickle(ReadOnlySpan<byte> beginning)
    {
        var text = Encoding.Latin1.GetString(beginning[..Math.Min(beginning.Length, 200)]);
        if (text.StartsWith("(dp", StringComparison.Ordinal) || text.StartsWith("(lp", StringComparison.Ordinal) || text.StartsWith("ccopy_reg\n", StringComparison.Ordinal))
            return true;
        // a list of words looks alike but for what follows: arguments, or where it is remembered
        var lines = text.TrimStart('(').Split('\n', 3);
        return lines.Length == 3 && lines[0].StartsWith('c') && lines[0].Length > 1 && lines[1].Length > 0
            && lines[..2].All(line => line.All(c => char.IsAsciiLetterOrDigit(c) || c is '_' or '.'))
            && (lines[2].StartsWith('(') || (lines[2].Length > 1 && lines[2][0] == 'p' && char.IsAsciiDigit(lines[2][1])));
    }
}
