namespace ModelHost.Simulator.Options;

/// <summary>A start-up failure the simulator can be told to act out.</summary>
internal enum ScriptedFailure
{
    None,
    Oom,
    Gated,
    KvCache,
    NoGpu,
    NotFound,
    BadParser,
    Unsupported,
    Nccl,
    Profiling,
    CacheBlocks,

    /// <summary>There is a token, and its owner has not accepted the licence.</summary>
    Licence,

    Revision,

    /// <summary>Not in the cache, and the network may not be asked.</summary>
    Offline,

    RemoteCode,
    Inspect,
    Runner,

    /// <summary>The platform has no sleep mode.</summary>
    NoSleep,

    /// <summary>Others hold the GPU.</summary>
    FreeMemory,

    /// <summary>The kernel ends the process for its memory: code 137 and not a word.</summary>
    Killed,
}

/// <summary>Who may load the model from the hub.</summary>
internal enum HubAccess
{
    Open,

    /// <summary>Whoever has a token.</summary>
    Gated,

    /// <summary>Nobody: the owner of the token has not accepted the licence.</summary>
    Closed,
}

/// <summary>Where the simulator stops making progress.</summary>
internal enum HangPoint
{
    None,

    /// <summary>While the weights are read: it never becomes ready.</summary>
    Load,

    /// <summary>In every inference request: it is accepted and never answered.</summary>
    Request,
}

/// <summary>How waking goes wrong.</summary>
internal enum WakeFailure
{
    None,

    /// <summary>It answers 500 and stays asleep.</summary>
    Refuse,

    /// <summary>It wakes, and answers nonsense from then on.</summary>
    Garble,

    /// <summary>The call is never answered.</summary>
    Hang,
}

/// <summary>What follows when there is too little free memory to wake.</summary>
internal enum NoMemory
{
    /// <summary>The call answers 500, and the server stays asleep.</summary>
    Refuse,

    /// <summary>The engine dies.</summary>
    Die,
}

/// <summary>How an inference request goes wrong after it was accepted.</summary>
internal enum RequestFailure
{
    None,

    /// <summary>The connection is reset.</summary>
    Cut,

    /// <summary>The engine fails: an error event in a stream, 500 elsewhere.</summary>
    Error,

    /// <summary>Nothing more comes until the client leaves.</summary>
    Stall,
}

/// <summary>What becomes of an adapter that is loaded at run time.</summary>
internal enum LoraLoading
{
    /// <summary>An absolute path must be a folder on this machine.</summary>
    Check,

    /// <summary>Every path is taken.</summary>
    Trust,

    /// <summary>The engine refuses it.</summary>
    Refuse,
}
