using System.Collections.Concurrent;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Requests;

/// <summary>Remembers the prompts that were computed, in whole blocks.</summary>
internal sealed class PrefixCache(bool enabled, int blockSize)
{
    private const int RememberedPrompts = 1024;

    private readonly ConcurrentDictionary<ulong, byte> _seen = [];

    public bool Enabled => enabled;

    /// <summary>Tokens of the prompts that are in the cache: whole blocks of a prompt seen before, never its last token.</summary>
    public int CachedTokens(GenerationRequest request)
    {
        if (!enabled)
            return 0;
        var cached = 0;
        foreach (var prompt in request.Prompts)
            if (!_seen.TryAdd(TextSource.Hash(prompt.Text, 0), 0))
                cached += (prompt.Tokens - 1) / blockSize * blockSize;
        // a crude bound is enough: forgetting everything only costs hits
        if (_seen.Count > RememberedPrompts)
            _seen.Clear();
        return cached;
    }

    public void Clear() => _seen.Clear();
}
