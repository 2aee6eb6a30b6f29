using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;

namespace ModelHost.Features.Stores;

/// <summary>
/// The file of one store: a head with the length of its vectors, then records. Compacting replaces it by a snapshot of what is there, to which the
/// following records are appended. What was cut off at a start lies beside it as <c>.cut</c>.
/// </summary>
internal sealed class StoreFile : IDisposable
{
    private const int HeadLength = 16;
    private const int Version = 1;
    private const int SnapshotRecordBytes = 1024 * 1024;
    private static ReadOnlySpan<byte> Magic => "MHSTORE\n"u8;

    private readonly string _path;
    private SafeFileHandle _handle;
    private bool _isDirty;

    private StoreFile(string path, SafeFileHandle handle, long length, VectorTable table) => (_path, _handle, Length, Table) = (path, handle, length, table);

    /// <summary>Its length in bytes.</summary>
    public long Length { get; private set; }

    /// <summary>What it says.</summary>
    public VectorTable Table { get; }

    /// <summary>Bytes behind the last whole record when it was opened: of changes that nobody was told of.</summary>
    public long CutBytes { get; private init; }

    /// <summary>Makes a new one.</summary>
    public static StoreFile Create(string path, int dimension)
    {
        var handle = Open(path, FileMode.Create);
        try
        {
            var length = WriteHead(handle, dimension);
            RandomAccess.FlushToDisk(handle);
            return new StoreFile(path, handle, length, new VectorTable(dimension));
        }
        catch
        {
            handle.Dispose();
            File.Delete(path);
            throw;
        }
    }

    /// <summary>Reads one; what is behind its last whole record is moved into a file of its own.</summary>
    /// <returns>Null: its making was interrupted, and there was never anything in it.</returns>
    /// <exception cref="InvalidDataException">It is not such a file, or of a later version.</exception>
    public static StoreFile? Read(string path)
    {
        File.Delete(path + ".new"); // a compaction that was interrupted
        using var stream = new FileStream(path, new FileStreamOptions { BufferSize = 1024 * 1024, Options = FileOptions.SequentialScan });
        Span<byte> head = stackalloc byte[HeadLength];
        if (stream.ReadAtLeast(head, HeadLength, throwOnEndOfStream: false) < HeadLength)
            return null;
        var dimension = BinaryPrimitives.ReadInt32LittleEndian(head[(Magic.Length + sizeof(int))..]);
        if (!head.StartsWith(Magic) || BinaryPrimitives.ReadInt32LittleEndian(head[Magic.Length..]) != Version || dimension is < 1 or > StoreService.LargestDimension)
            throw new InvalidDataException($"{path} is no file of a vector store, or of a later version");
        var table = new VectorTable(dimension);
        var end = ReadRecords(stream, table);
        var cut = stream.Length - end;
        if (cut > 0)
            KeepCut(stream, end, path + ".cut");
        var handle = Open(path, FileMode.Open);
        RandomAccess.SetLength(handle, end);
        return new StoreFile(path, handle, end, table) { CutBytes = cut };
    }

    /// <summary>Appends records and waits until they are on the disk.</summary>
    /// <exception cref="IOException">They are not, and nothing of them is in the file.</exception>
    public void Append(IReadOnlyList<ReadOnlyMemory<byte>> records)
    {
        // a record that was refused must not come back at the next start
        if (_isDirty)
            RandomAccess.SetLength(_handle, Length);
        _isDirty = true;
        try
        {
            RandomAccess.Write(_handle, records, Length);
            RandomAccess.FlushToDisk(_handle);
        }
        catch
        {
            RandomAccess.SetLength(_handle, Length);
            throw;
        }
        _isDirty = false;
        Length += records.Sum(record => (long)record.Length);
    }

    /// <summary>Replaces the file by one with what is in the table.</summary>
    public void Compact()
    {
        var path = _path + ".new";
        var handle = Open(path, FileMode.Create);
        try
        {
            var length = WriteHead(handle, Table.Dimension);
            for (var row = 0; row < Table.Count;)
            {
                var first = row;
                for (var bytes = 0L; row < Table.Count && bytes < SnapshotRecordBytes; row++)
                    bytes += (Table.Dimension * sizeof(float)) + Table.Value(row).Length;
                var record = StoreRecord.Write(StoreChange.Set, Table.Dimension, row - first, i => Table.Key(first + i), i => Table.Value(first + i));
                RandomAccess.Write(handle, record, length);
                length += record.Length;
            }
            RandomAccess.FlushToDisk(handle);
            // the next flush of the file, before which nothing is acknowledged, brings its new name to the disk too on file systems with a journal
            File.Move(path, _path, overwrite: true);
            _handle.Dispose();
            (_handle, Length, _isDirty) = (handle, length, false);
        }
        catch
        {
            handle.Dispose();
            File.Delete(path);
            throw;
        }
    }

    public void Dispose() => _handle.Dispose();

    private static SafeFileHandle Open(string path, FileMode mode)
    {
        if (mode == FileMode.Open)
            return File.OpenHandle(path, mode, FileAccess.ReadWrite);
        // for its owner only, as all of the data folder
        using var made = new FileStream(path, new FileStreamOptions { Mode = mode, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite });
        return File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
    }

    private static int WriteHead(SafeFileHandle handle, int dimension)
    {
        var head = new byte[HeadLength];
        Magic.CopyTo(head);
        BinaryPrimitives.WriteInt32LittleEndian(head.AsSpan(Magic.Length), Version);
        BinaryPrimitives.WriteInt32LittleEndian(head.AsSpan(Magic.Length + sizeof(int)), dimension);
        RandomAccess.Write(handle, head, 0);
        return HeadLength;
    }

    /// <returns>Where the last whole record ends.</returns>
    private static long ReadRecords(FileStream stream, VectorTable table)
    {
        var end = stream.Position;
        Span<byte> head = stackalloc byte[StoreRecord.HeadLength];
        var buffer = new byte[SnapshotRecordBytes];
        while (stream.ReadAtLeast(head, head.Length, throwOnEndOfStream: false) == head.Length)
        {
            var length = BinaryPrimitives.ReadInt32LittleEndian(head);
            if (length <= 0 || length > stream.Length - stream.Position)
                break;
            if (buffer.Length < length)
                buffer = new byte[length];
            var payload = buffer.AsSpan(0, length);
            stream.ReadExactly(payload);
            if (!StoreRecord.IsWhole(payload, BinaryPrimitives.ReadUInt32LittleEndian(head[sizeof(int)..])))
                break;
            StoreRecord.Apply(payload, table);
            end = stream.Position;
        }
        return end;
    }

    private static void KeepCut(FileStream stream, long from, string path)
    {
        using var handle = Open(path, FileMode.Create);
        using var kept = new FileStream(handle, FileAccess.Write);
        stream.Position = from;
        stream.CopyTo(kept);
        kept.Flush(flushToDisk: true);
    }
}
