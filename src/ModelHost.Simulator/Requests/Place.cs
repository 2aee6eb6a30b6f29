namespace ModelHost.Simulator.Requests;

/// <summary>The full blocks of a prompt.</summary>
/// <param name="Keys">What they are found by.</param>
/// <param name="MostFound">How many of them may come from the cache: the last token of a prompt is always computed.</param>
internal readonly record struct PromptBlocks(ulong[] Keys, int MostFound);

/// <summary>A request as its scheduler sees it: in the queue, or in the batch with its blocks. The scheduler's lock covers all that changes.</summary>
internal sealed class Place
{
    private volatile bool _runs;

    /// <param name="sequences">Places of <c>--max-num-seqs</c> that it takes.</param>
    /// <param name="prompts">The full blocks of each of its prompts.</param>
    /// <param name="promptTokens">Tokens of all its prompts.</param>
    /// <param name="adapter">The adapter it needs.</param>
    /// <param name="bornDuring">The pause that there was when it came.</param>
    public Place(int sequences, PromptBlocks[] prompts, int promptTokens, string? adapter, PauseGate? bornDuring)
    {
        (Sequences, Prompts, PromptTokens, Adapter, BornDuring) = (sequences, prompts, promptTokens, adapter, bornDuring);
        Node = new(this);
    }

    public int Sequences { get; }

    public PromptBlocks[] Prompts { get; }

    public int PromptTokens { get; }

    public string? Adapter { get; }

    public PauseGate? BornDuring { get; }

    /// <summary>Where it stands in the queue or in the batch.</summary>
    public LinkedListNode<Place> Node { get; }

    public BlockLease Lease { get; } = new();

    /// <summary>Blocks of its own that it needs to run.</summary>
    public int PrivateBlocks { get; set; }

    /// <summary>It has all blocks up to its end, so it never waits, and is never sent back.</summary>
    public bool IsWhole { get; set; }

    /// <summary>Blocks of its prompts that were in the cache when it last began to run.</summary>
    public int FoundBlocks { get; set; }

    /// <summary>It is in the batch. Turns false when the scheduler sends it back.</summary>
    public bool Runs
    {
        get => _runs;
        set => _runs = value;
    }

    /// <summary>Ends when it is its turn; there while it queues.</summary>
    public TaskCompletionSource? Turn { get; set; }
}
