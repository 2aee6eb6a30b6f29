using ModelHost.Simulator.Metrics;

namespace ModelHost.Simulator.Requests;

/// <summary>The blocks of the KV cache that one request has.</summary>
internal sealed class BlockLease
{
    /// <summary>Blocks that other requests with the same beginning may use too.</summary>
    internal List<BlockPool.Block> Shared { get; } = new(0);

    /// <summary>Blocks that nobody else can use: those of generated tokens, and the last, unfinished one of a prompt.</summary>
    public int Private { get; internal set; }
}

/// <summary>
/// The KV cache of an engine in blocks of <c>--block-size</c> tokens. Blocks of prompts are found again by what they and all before them
/// contain; unused ones stay, the longest unused goes first when room is needed, and of one prompt the end goes before the beginning.
/// Not safe for threads: the scheduler holds a lock.
/// </summary>
internal sealed class BlockPool(int total, BlockSampling? sampling)
{
    /// <summary>Unused blocks that are remembered at most, however large the simulated cache: each takes some 200 bytes of real memory.</summary>
    private const int MostIdle = 1 << 18;

    private readonly Dictionary<ulong, Block> _byKey = [];
    private readonly LinkedList<Block> _idle = [];
    private int _taken;

    /// <summary>Share of the blocks that requests have, from 0 to 1.</summary>
    public double Usage => total == 0 ? 0 : Math.Min(1, (double)_taken / total);

    /// <summary>Whether a request could have these blocks now.</summary>
    public bool HasRoom(ReadOnlySpan<PromptBlocks> prompts, int privateBlocks)
    {
        var needed = (long)_taken + privateBlocks;
        if (needed > total)
            return false;
        foreach (var prompt in prompts)
            foreach (var key in prompt.Keys)
                if (!_byKey.TryGetValue(key, out var block) || block.Users == 0)
                    needed++;
        return needed <= total;
    }

    /// <summary>Gives a request its blocks, room or not.</summary>
    /// <returns>How many blocks at the beginning of each prompt were there already, in all.</returns>
    public int Take(BlockLease lease, ReadOnlySpan<PromptBlocks> prompts, int privateBlocks)
    {
        var found = 0;
        foreach (var prompt in prompts)
        {
            lease.Shared.EnsureCapacity(lease.Shared.Count + prompt.Keys.Length);
            var (unbroken, ofPrompt) = (true, 0);
            foreach (var key in prompt.Keys)
            {
                unbroken &= _byKey.TryGetValue(key, out var block);
                ofPrompt += unbroken ? 1 : 0;
                Use(lease, block ?? Add(key));
            }
            found += Math.Min(ofPrompt, prompt.MostFound);
        }
        Grow(lease, privateBlocks);
        return found;
    }

    public bool HasRoom(int blocks) => _taken + blocks <= total;

    /// <summary>Gives a request more blocks of its own, room or not.</summary>
    public void Grow(BlockLease lease, int blocks)
    {
        lease.Private += blocks;
        _taken += blocks;
        Evict();
    }

    public void Release(BlockLease lease)
    {
        _taken -= lease.Private;
        lease.Private = 0;
        for (var i = lease.Shared.Count - 1; i >= 0; i--)
        {
            var block = lease.Shared[i];
            if (--block.Users > 0)
                continue;
            _taken--;
            if (block.IsCached)
                _idle.AddLast(block.Node);
        }
        lease.Shared.Clear();
        Evict();
    }

    /// <summary>Forgets all prompts; blocks in use stay in use.</summary>
    public void Forget()
    {
        foreach (var block in _byKey.Values)
            block.IsCached = false;
        _byKey.Clear();
        _idle.Clear();
    }

    /// <summary>Whether a request has any block.</summary>
    public bool IsInUse => _taken > 0;

    private Block Add(ulong key)
    {
        var block = new Block(key) { IsCached = true };
        sampling?.Created(block);
        _byKey.Add(key, block);
        return block;
    }

    private void Use(BlockLease lease, Block block)
    {
        lease.Shared.Add(block);
        sampling?.Touched(block);
        if (block.Users++ > 0)
            return;
        _taken++;
        if (block.Node.List is not null)
            _idle.Remove(block.Node);
    }

    private void Evict()
    {
        while (_idle.First is { } oldest && (_taken + _idle.Count > total || _idle.Count > MostIdle))
        {
            _idle.Remove(oldest);
            _byKey.Remove(oldest.Value.Key);
            sampling?.Evicted(oldest.Value);
        }
    }

    internal sealed class Block
    {
        public Block(ulong key) => (Key, Node) = (key, new(this));

        public ulong Key { get; }

        public LinkedListNode<Block> Node { get; }

        public int Users { get; set; }

        /// <summary>It can be found by its key.</summary>
        public bool IsCached { get; set; }

        /// <summary>Times of its making and last use, when it is one of the sampled blocks; otherwise 0.</summary>
        public (long Created, long Touched) Times { get; set; }
    }
}

/// <summary>Observes how long a share of the blocks stays, as <c>--kv-cache-metrics</c> asks.</summary>
internal sealed class BlockSampling(double share, EngineMetrics metrics, TimeProvider time)
{
    private readonly FailureRate _chosen = new(share * 100);

    public void Created(BlockPool.Block block) => block.Times = _chosen.Next() ? (time.GetTimestamp(), 0) : default;

    public void Touched(BlockPool.Block block)
    {
        if (block.Times.Created == 0)
            return;
        var now = time.GetTimestamp();
        if (block.Times.Touched != 0)
            metrics.BlockReused(time.GetElapsedTime(block.Times.Touched, now).TotalSeconds);
        block.Times = block.Times with { Touched = now };
    }

    public void Evicted(BlockPool.Block block)
    {
        if (block.Times.Created == 0)
            return;
        var now = time.GetTimestamp();
        metrics.BlockEvicted(time.GetElapsedTime(block.Times.Created, now).TotalSeconds, time.GetElapsedTime(block.Times.Touched, now).TotalSeconds);
    }
}
