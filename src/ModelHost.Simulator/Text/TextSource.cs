namespace ModelHost.Simulator.Text;

/// <summary>Endless English-looking text, one token at a time, wholly determined by its seed.</summary>
internal struct TextSource(ulong seed)
{
    private ulong _state = seed | 1;
    private int _leftInSentence;
    private bool _started;

    /// <summary>FNV-1a over the given text: stable between processes and releases, unlike <see cref="string.GetHashCode()"/>.</summary>
    public static ulong Hash(ReadOnlySpan<char> text, ulong seed)
    {
        var hash = 14_695_981_039_346_656_037 ^ (seed * 0x9E37_79B9_7F4A_7C15);
        foreach (var character in text)
            hash = (hash ^ character) * 1_099_511_628_211;
        return hash;
    }

    public string Next()
    {
        if (_started && _leftInSentence == 0)
        {
            _leftInSentence = -1;
            return ".";
        }
        var first = !_started || _leftInSentence < 0;
        if (first)
            _leftInSentence = 6 + (int)(Random() % 9);
        _leftInSentence--;
        var form = (_started ? 1 : 0) | (first ? 2 : 0);
        _started = true;
        return Vocabulary.Word((int)(Random() % (ulong)Vocabulary.WordCount), form);
    }

    /// <summary>xorshift64*, for its few lines.</summary>
    public ulong Random()
    {
        _state ^= _state >> 12;
        _state ^= _state << 25;
        _state ^= _state >> 27;
        return (_state * 0x2545_F491_4F6C_DD1D) >> 16;
    }
}
