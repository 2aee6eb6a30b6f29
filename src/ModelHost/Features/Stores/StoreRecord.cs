using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;

namespace ModelHost.Features.Stores;

/// <summary>What a record of a store's file does.</summary>
internal enum StoreChange : byte
{
    /// <summary>Sets keys.</summary>
    Set = 1,
    /// <summary>Deletes keys.</summary>
    Delete = 2,
}

/// <summary>
/// A change as it stands in a store's file: length and CRC-32C of the rest, the kind, the number of keys, their numbers, and for a set the values, each
/// behind its length; little endian. One request is one record: it is there whole or not at all.
/// </summary>
internal static class StoreRecord
{
    /// <summary>Bytes before the part that the CRC is of.</summary>
    public const int HeadLength = 8;

    private const int CountAt = 1;
    private const int KeysAt = 5;

    /// <summary>Writes one.</summary>
    public static byte[] Write(StoreChange kind, int dimension, int count, Func<int, ReadOnlySpan<float>> key, Func<int, byte[]> value)
    {
        var keyLength = dimension * sizeof(float);
        var length = KeysAt + ((long)count * keyLength);
        for (var i = 0; kind == StoreChange.Set && i < count; i++)
            length += sizeof(int) + value(i).Length;
        var record = new byte[checked((int)(HeadLength + length))];
        var payload = record.AsSpan(HeadLength);
        payload[0] = (byte)kind;
        BinaryPrimitives.WriteInt32LittleEndian(payload[CountAt..], count);
        var rest = payload[KeysAt..];
        for (var i = 0; i < count; i++, rest = rest[keyLength..])
            MemoryMarshal.AsBytes(key(i)).CopyTo(rest);
        for (var i = 0; kind == StoreChange.Set && i < count; i++)
        {
            var text = value(i);
            BinaryPrimitives.WriteInt32LittleEndian(rest, text.Length);
            text.CopyTo(rest[sizeof(int)..]);
            rest = rest[(sizeof(int) + text.Length)..];
        }
        BinaryPrimitives.WriteInt32LittleEndian(record, payload.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(sizeof(int)), Crc(payload));
        return record;
    }

    /// <summary>Whether one that was read is as it was written.</summary>
    /// <param name="payload">All of it behind the head.</param>
    /// <param name="crc">What the head says of it.</param>
    public static bool IsWhole(ReadOnlySpan<byte> payload, uint crc) => payload.Length >= KeysAt && Crc(payload) == crc;

    /// <summary>Does what one says.</summary>
    /// <param name="payload">All of it behind the head, whole.</param>
    /// <param name="table">Where.</param>
    public static void Apply(ReadOnlySpan<byte> payload, VectorTable table)
    {
        var keyLength = table.Dimension * sizeof(float);
        var count = BinaryPrimitives.ReadInt32LittleEndian(payload[CountAt..]);
        var keys = payload.Slice(KeysAt, count * keyLength);
        var values = payload[(KeysAt + keys.Length)..];
        for (var i = 0; i < count; i++)
        {
            var key = MemoryMarshal.Cast<byte, float>(keys.Slice(i * keyLength, keyLength));
            if (payload[0] == (byte)StoreChange.Delete)
            {
                table.Delete(key);
                continue;
            }
            var length = BinaryPrimitives.ReadInt32LittleEndian(values);
            table.Set(key, values.Slice(sizeof(int), length).ToArray());
            values = values[(sizeof(int) + length)..];
        }
    }

    private static uint Crc(ReadOnlySpan<byte> bytes)
    {
        var crc = uint.MaxValue;
        foreach (var word in MemoryMarshal.Cast<byte, ulong>(bytes))
            crc = BitOperations.Crc32C(crc, word);
        foreach (var rest in bytes[(bytes.Length & ~7)..])
            crc = BitOperations.Crc32C(crc, rest);
        return ~crc;
    }
}
