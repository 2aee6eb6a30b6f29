using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>How a generation ended.</summary>
internal enum Outcome
{
    Running,
    Finished,

    /// <summary>The server is stopping: what there is goes out, with finish reason abort.</summary>
    Aborted,

    /// <summary>Nobody is there to read the answer.</summary>
    Disconnected,

    EngineDead,

    /// <summary>The engine could not go on with this request.</summary>
    Failed,
}

/// <summary>One request on its way through the engine: keeps the time of each token and counts what happens.</summary>
internal sealed class Generation : IDisposable
{
    private readonly Engine _engine;
    private readonly Place _place;
    private readonly Pace? _pace;
    private readonly CancellationToken _disconnected;
    private readonly long _arrived;
    private readonly bool _timed;
    private readonly CancellationToken _aborted;
    private readonly CancellationTokenSource? _own;
    private TimeSpan _due;
    private TimeSpan _frozen;
    private long _scheduled;
    private long _firstToken;
    private long _lastToken;
    private bool _entered;
    private bool _begun;
    private CancellationTokenSource? _linked;

    public Generation(Engine engine, EngineRank rank, GenerationRequest request, Sequence[] sequences, Place place, CancellationToken disconnected)
    {
        (_engine, Rank, _place, Request, Sequences, _disconnected) = (engine, rank, place, request, sequences, disconnected);
        _aborted = engine.Aborted;
        _own = engine.CanAbortOne ? new() : null;
        _arrived = engine.Time.GetTimestamp();
        _timed = engine.Knobs.HasTimes || engine.Knobs.Hang == HangPoint.Request;
        _pace = engine.Knobs.HasTimes ? new(engine.Knobs, rank.Scheduler, engine.NextSeed()) : null;
        if (request.Adapter is not null)
            engine.Adapters.Count(request.Adapter, 1, 0);
        foreach (var sequence in sequences)
            Longest = Math.Max(Longest, sequence.Length);
    }

    /// <summary>The engine that it runs on.</summary>
    public EngineRank Rank { get; }

    public GenerationRequest Request { get; }

    /// <summary>The id in the answer.</summary>
    public string? Id { get; init; }

    /// <summary>What a knob has in store for this request.</summary>
    public RequestFailure Failure { get; init; }

    public Sequence[] Sequences { get; }

    /// <summary>Steps made so far; each gives one token to every sequence that is not at its end.</summary>
    public int Step { get; private set; }

    public int CachedTokens { get; private set; }

    public Outcome Outcome { get; private set; }

    private int Longest { get; }

    /// <summary>Tokens that a sequence has got so far.</summary>
    public int Done(Sequence sequence) => Math.Min(Step, sequence.Length);

    public FinishReason FinishOf(Sequence sequence) => Step < sequence.Length ? FinishReason.Abort : sequence.Finish;

    public int CompletionTokens
    {
        get
        {
            var sum = 0;
            foreach (var sequence in Sequences)
                sum += Done(sequence);
            return sum;
        }
    }

    /// <summary>Runs to the end, whichever it is.</summary>
    public async ValueTask RunAsync()
    {
        if (!_timed && !_engine.Stopping && !_engine.IsDead && TryEnterWhole())
        {
            // no time passes between the tokens, so they are counted together
            Entered();
            if (Interrupted())
                return;
            using (Rank.Metrics.Together())
            {
                First();
                Advance(Longest);
                Count(Outcome.Finished);
            }
            Leave();
            return;
        }
        while (await NextAsync())
        {
        }
    }

    /// <summary>Waits for the next token.</summary>
    /// <returns>False when there is none; <see cref="Outcome"/> then says why.</returns>
    public async ValueTask<bool> NextAsync()
    {
        if (Outcome != Outcome.Running || Interrupted())
            return false;
        if (!_place.Runs || _timed || _engine.CurrentPause is { Freezes: true } || !TryGrow())
            try
            {
                await WaitAsync();
            }
            catch (OperationCanceledException)
            {
                Interrupted();
                return false;
            }
        if (Interrupted())
            return false;
        if (!_begun)
            First();
        Advance(1);
        if (Step >= Longest)
            End(Outcome.Finished);
        return true;
    }

    /// <summary>Ends it with finish reason error.</summary>
    public void Fail()
    {
        if (Outcome == Outcome.Running)
            End(Outcome.Failed);
    }

    /// <summary>Ends this one request as aborted.</summary>
    public void Abort() => _own?.Cancel();

    public void Dispose()
    {
        if (Outcome == Outcome.Running)
            End(Outcome.Disconnected);
        _linked?.Dispose();
        _engine.Ended(this, Outcome is Outcome.Finished);
    }

    /// <summary>Takes all blocks at once, for a request that does not wait between its tokens.</summary>
    private bool TryEnterWhole()
    {
        (_place.PrivateBlocks, _place.IsWhole) = (PrivateBlocks(Longest), true);
        if (Rank.Scheduler.TryEnter(_place))
            return true;
        _place.IsWhole = false;
        return false;
    }

    /// <summary>Has the blocks for the next token.</summary>
    private bool TryGrow()
    {
        var more = PrivateBlocks(Step + 1) - _place.Lease.Private;
        return more <= 0 || Rank.Scheduler.TryGrow(_place, more);
    }

    /// <summary>Blocks that hold what is not shared, after so many steps.</summary>
    private int PrivateBlocks(int step)
    {
        var blocks = 0;
        for (var i = 0; i < Sequences.Length; i++)
        {
            var sequence = Sequences[i];
            var tokens = sequence.Prompt.Tokens + Math.Min(step, sequence.Length);
            blocks += ((tokens + _engine.BlockSize - 1) / _engine.BlockSize) - _place.Prompts[i / Request.N].Keys.Length;
        }
        return blocks;
    }

    /// <summary>Waits for a turn, for the time of the next token, for the end of a pause, and again when the scheduler sends it back meanwhile.</summary>
    private async ValueTask WaitAsync()
    {
        _linked ??= CancellationTokenSource.CreateLinkedTokenSource(_disconnected, _aborted, _own?.Token ?? default);
        do
        {
            if (!_entered || !_place.Runs)
            {
                _place.PrivateBlocks = PrivateBlocks(Step);
                await Rank.Scheduler.EnterAsync(_place, _linked.Token);
                Entered();
            }
            if (_engine.Knobs.Hang == HangPoint.Request)
                await Task.Delay(Timeout.InfiniteTimeSpan, _engine.Time, _linked.Token);
            // from the schedule and not from the last token: otherwise each timer's delay would add up
            var left = _due + _frozen - _engine.Time.GetElapsedTime(_scheduled);
            if (left > TimeSpan.Zero)
                await Task.Delay(left, _engine.Time, _linked.Token);
            while (_engine.CurrentPause is { Freezes: true } pause)
            {
                var stopped = _engine.Time.GetTimestamp();
                await pause.Ended.WaitAsync(_linked.Token);
                _frozen += _engine.Time.GetElapsedTime(stopped);
            }
        }
        while (!_place.Runs || !TryGrow());
    }

    private bool Interrupted()
    {
        if (_disconnected.IsCancellationRequested)
            End(Outcome.Disconnected);
        else if (_engine.IsDead)
            End(Outcome.EngineDead);
        else if (_aborted.IsCancellationRequested || _own?.IsCancellationRequested == true || (_engine.Stopping && !_entered && Step == 0))
            End(Outcome.Aborted);
        return Outcome != Outcome.Running;
    }

    /// <summary>It runs, for the first time or again: then everything that was computed is computed once more.</summary>
    private void Entered()
    {
        var (again, found) = (_entered, _place.FoundBlocks * _engine.BlockSize);
        _entered = true;
        _begun = false;
        _scheduled = _engine.Time.GetTimestamp();
        _frozen = TimeSpan.Zero;
        if (!again)
            CachedTokens = found;
        _due = _pace?.First(Request.PromptTokens - found + CompletionTokens) ?? TimeSpan.Zero;
        if (_engine.MemoryAway)
            _engine.Die();
        if (again)
            return;
        if (Request.Adapter is not null)
            _engine.Adapters.Count(Request.Adapter, -1, 1);
        for (var i = 0; i < Sequences.Length && _engine.Garbled; i++)
            Sequences[i] = Sequences[i].Garbled();
    }

    /// <summary>The first token since it last began to run.</summary>
    private void First()
    {
        _begun = true;
        _firstToken = _engine.Time.GetTimestamp();
        if (Step > 0)
            return;
        _lastToken = _firstToken;
        Rank.Metrics.FirstToken(Seconds(_arrived, _firstToken), Request.PromptTokens, CachedTokens, _engine.CachesPrefixes, Sequences.Length);
    }

    private void Advance(int steps)
    {
        var before = CompletionTokens;
        var gaps = Step == 0 ? Sequences.Length : 0;
        Step += steps;
        var tokens = CompletionTokens - before;
        var now = steps == 1 ? _engine.Time.GetTimestamp() : _lastToken;
        Rank.Metrics.Tokens(tokens, Seconds(_lastToken, now), tokens - gaps);
        _lastToken = now;
        if (_pace is not null)
            _due += _pace.Gap();
    }

    private void End(Outcome outcome)
    {
        Count(outcome);
        Leave();
    }

    private void Count(Outcome outcome)
    {
        Outcome = outcome;
        var now = _engine.Time.GetTimestamp();
        var scheduled = _entered ? _scheduled : now;
        var first = _begun ? _firstToken : now;
        var last = _begun ? _lastToken : now;
        var times = new RequestTimes(Seconds(_arrived, scheduled), Seconds(scheduled, first), Seconds(first, last), Seconds(_arrived, now));
        var longest = 0;
        for (var i = 0; i < Sequences.Length; i++)
        {
            var (sequence, isLast) = (Sequences[i], (i + 1) % Request.N == 0);
            longest = Math.Max(longest, Done(sequence));
            Rank.Metrics.Finished(
                outcome is Outcome.EngineDead or Outcome.Failed ? FinishReason.Error : FinishOf(sequence), times, sequence.Prompt.Tokens, Done(sequence),
                Request.MaxTokens, isLast ? Request.N : 0, longest);
            if (isLast)
                longest = 0;
        }
    }

    private void Leave()
    {
        if (Request.Adapter is not null)
            _engine.Adapters.Count(Request.Adapter, _entered ? 0 : -1, _entered ? -1 : 0);
        if (_entered)
            Rank.Scheduler.Leave(_place);
    }

    private double Seconds(long from, long to) => _engine.Time.GetElapsedTime(from, to).TotalSeconds;
}
