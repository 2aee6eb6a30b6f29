using System.Numerics.Tensors;
using System.Runtime.InteropServices;

namespace ModelHost.Features.Stores;

/// <summary>A key and value that was found, and how similar it is to what was asked for.</summary>
internal readonly record struct VectorMatch(float[] Key, byte[] Value, float Similarity);

/// <summary>
/// Vectors of one length with their values, in memory. Rows are kept without gaps, in pages that are never copied when it grows. One thread may write
/// while none reads; any number may read.
/// </summary>
internal sealed class VectorTable
{
    /// <summary>Bytes that a row takes beside its numbers and its value: the value's object, its square, references and the place in the index.</summary>
    public const int RowOverhead = 64;

    private const int PageBytes = 1024 * 1024;
    // below this, waking other threads takes longer than the search
    private const int BytesPerWorker = 2 * 1024 * 1024;

    private readonly int _rowsPerPage;
    private readonly List<float[]> _pages = [];
    private readonly List<float> _squares = [];
    private readonly List<byte[]> _values = [];
    private readonly HashSet<int> _rows;
    private readonly HashSet<int>.AlternateLookup<ReadOnlySpan<float>> _byKey;

    /// <summary>Makes an empty one.</summary>
    /// <param name="dimension">Numbers in each vector.</param>
    public VectorTable(int dimension)
    {
        Dimension = dimension;
        _rowsPerPage = Math.Max(1, PageBytes / (dimension * sizeof(float)));
        _rows = new HashSet<int>(new KeyComparer(this));
        _byKey = _rows.GetAlternateLookup<ReadOnlySpan<float>>();
    }

    /// <summary>Numbers in each vector.</summary>
    public int Dimension { get; }

    /// <summary>Number of keys.</summary>
    public int Count => _values.Count;

    /// <summary>Bytes that they take, nearly.</summary>
    public long Bytes { get; private set; }

    /// <summary>The vector of a row.</summary>
    public ReadOnlySpan<float> Key(int row) => Row(row);

    /// <summary>The value of a row.</summary>
    public byte[] Value(int row) => _values[row];

    /// <summary>Sets the value of a key.</summary>
    public void Set(ReadOnlySpan<float> key, byte[] value)
    {
        if (_byKey.TryGetValue(key, out var row))
        {
            Bytes += value.Length - _values[row].Length;
            _values[row] = value;
            return;
        }
        row = Count;
        if (row == _pages.Count * _rowsPerPage)
            _pages.Add(GC.AllocateUninitializedArray<float>(_rowsPerPage * Dimension));
        _values.Add(value);
        _squares.Add(TensorPrimitives.Dot(key, key));
        key.CopyTo(Row(row));
        _rows.Add(row);
        Bytes += (Dimension * sizeof(float)) + value.Length + RowOverhead;
    }

    /// <summary>Deletes a key, if it is there.</summary>
    public void Delete(ReadOnlySpan<float> key)
    {
        if (!_byKey.TryGetValue(key, out var row))
            return;
        Bytes -= (Dimension * sizeof(float)) + _values[row].Length + RowOverhead;
        var last = Count - 1;
        _rows.Remove(row);
        if (row != last)
        {
            // the last row fills the gap
            _rows.Remove(last);
            Row(last).CopyTo(Row(row));
            (_values[row], _squares[row]) = (_values[last], _squares[last]);
            _rows.Add(row);
        }
        _values.RemoveAt(last);
        _squares.RemoveAt(last);
        if (_pages.Count * _rowsPerPage >= Count + (2 * _rowsPerPage))
            _pages.RemoveAt(_pages.Count - 1);
    }

    /// <summary>Those of some keys that are there, in the order of their numbers.</summary>
    public VectorMatch[] Get(IEnumerable<float[]> keys)
    {
        var rows = new HashSet<int>();
        foreach (var key in keys)
        {
            if (_byKey.TryGetValue(key, out var row))
                rows.Add(row);
        }
        var found = rows.Select(row => Match(row, 1)).ToArray();
        Array.Sort(found, static (a, b) => a.Key.AsSpan().SequenceCompareTo(b.Key));
        return found;
    }

    /// <summary>The keys with the largest cosine similarity, largest first; equal ones in the order of their numbers.</summary>
    /// <param name="query">What they are compared with.</param>
    /// <param name="count">How many at most.</param>
    public VectorMatch[] Find(float[] query, int count)
    {
        count = Math.Min(count, Count);
        if (count == 0)
            return [];
        var square = TensorPrimitives.Dot<float>(query, query);
        var workers = (int)Math.Clamp((long)_pages.Count * PageBytes / BytesPerWorker, 1, Environment.ProcessorCount);
        var parts = new PriorityQueue<int, float>[workers];
        if (workers == 1)
            parts[0] = Best(query, square, count, 0, _pages.Count);
        else
            Parallel.For(0, workers, worker => parts[worker] = Best(query, square, count, _pages.Count * worker / workers, _pages.Count * (worker + 1) / workers));
        var found = parts.SelectMany(part => part.UnorderedItems).OrderByDescending(item => item.Priority).Take(count).Select(item => Match(item.Element, item.Priority)).ToArray();
        Array.Sort(found, static (a, b) => b.Similarity.CompareTo(a.Similarity) is not 0 and var order ? order : a.Key.AsSpan().SequenceCompareTo(b.Key));
        return found;
    }

    /// <summary>The best of some pages, the worst of them first.</summary>
    private PriorityQueue<int, float> Best(ReadOnlySpan<float> query, float square, int count, int firstPage, int endPage)
    {
        var best = new PriorityQueue<int, float>();
        var worst = float.NegativeInfinity;
        var squares = CollectionsMarshal.AsSpan(_squares);
        var isOrdinary = IsOrdinary(square);
        for (var page = firstPage; page < endPage; page++)
        {
            var numbers = _pages[page].AsSpan();
            var first = page * _rowsPerPage;
            for (var row = first; row < Math.Min(first + _rowsPerPage, squares.Length); row++)
            {
                var key = numbers.Slice((row - first) * Dimension, Dimension);
                // under one root, so that a vector is just like itself
                var similarity = isOrdinary && IsOrdinary(squares[row]) ? TensorPrimitives.Dot(key, query) / MathF.Sqrt(squares[row] * square) : Careful(key, query);
                if (best.Count < count)
                    best.Enqueue(row, similarity);
                else if (similarity > worst)
                    best.EnqueueDequeue(row, similarity);
                else
                    continue;
                if (best.Count == count && best.TryPeek(out _, out var least))
                    worst = least;
            }
        }
        return best;
    }

    // the product of two of these stays within what a float holds exactly
    private static bool IsOrdinary(float square) => square is > 1e-18f and < 1e18f;

    /// <summary>The similarity of numbers so large or small that their squares are none any more; 0 with a vector that has no direction.</summary>
    private static float Careful(ReadOnlySpan<float> a, ReadOnlySpan<float> b)
    {
        var (dot, aa, bb) = (0.0, 0.0, 0.0);
        for (var i = 0; i < a.Length; i++)
        {
            dot += (double)a[i] * b[i];
            aa += (double)a[i] * a[i];
            bb += (double)b[i] * b[i];
        }
        return aa == 0 || bb == 0 ? 0 : (float)(dot / (Math.Sqrt(aa) * Math.Sqrt(bb)));
    }

    private VectorMatch Match(int row, float similarity) => new(Row(row).ToArray(), _values[row], similarity);

    private Span<float> Row(int row) => _pages[row / _rowsPerPage].AsSpan(row % _rowsPerPage * Dimension, Dimension);

    /// <summary>Compares rows by their vectors, and with vectors. Numbers are never NaN, and zeros never negative: equal ones have the same bits.</summary>
    private sealed class KeyComparer(VectorTable table) : IEqualityComparer<int>, IAlternateEqualityComparer<ReadOnlySpan<float>, int>
    {
        public bool Equals(int x, int y) => x == y || Equals(table.Row(x), y);

        public int GetHashCode(int obj) => GetHashCode(table.Row(obj));

        public bool Equals(ReadOnlySpan<float> alternate, int other) => MemoryMarshal.AsBytes(alternate).SequenceEqual(MemoryMarshal.AsBytes(table.Row(other)));

        public int GetHashCode(ReadOnlySpan<float> alternate)
        {
            var hash = new HashCode();
            hash.AddBytes(MemoryMarshal.AsBytes(alternate));
            return hash.ToHashCode();
        }

        public int Create(ReadOnlySpan<float> alternate) => throw new NotSupportedException("a row is made by its number");
    }
}
