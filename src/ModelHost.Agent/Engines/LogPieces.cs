using System.Runtime.CompilerServices;
using Google.Protobuf;
using ModelHost.Protocol;

namespace ModelHost.Agent.Engines;

/// <summary>Reads files in pieces that fit into messages.</summary>
internal static class LogPieces
{
    private const int Size = 64 * 1024;

    /// <summary>All that is in the files when they are first read, and no more: one that is written faster than it is read must end. They are closed at the end.</summary>
    public static async IAsyncEnumerable<LogPiece> ReadAsync(IReadOnlyList<FileStream> files, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        try
        {
            var lengths = files.Select(file => file.Length).ToArray();
            for (var i = 0; i < files.Count; i++)
            {
                for (var left = lengths[i]; left > 0;)
                {
                    var buffer = new byte[(int)Math.Min(left, Size)];
                    var read = await files[i].ReadAsync(buffer, cancellationToken);
                    if (read == 0)
                        break; // cut short in between
                    left -= read;
                    yield return new LogPiece { Data = UnsafeByteOperations.UnsafeWrap(buffer.AsMemory(0, read)) };
                }
            }
        }
        finally
        {
            foreach (var file in files)
                await file.DisposeAsync();
        }
    }
}
