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

/// <summary>One admitted request on its way through the engine: keeps the time of each token and counts what happens.</summary>
internal sealed class Generation : IDisposable
{
    private readonly Engine _engine;
    private readonly CancellationToken _disconnected;
    private readonly long _arrived;
    private readonly bool _timed;
    private readonly CancellationToken _aborted;
    private readonly PauseGate? _bornDuring;
    private readonly CancellationTokenSource? _own;
    private TimeSpan _frozen;
    private long _scheduled;
    private long _firstToken;
    private long _lastToken;
    private bool _entered;
    private CancellationTokenSource? _linked;

    public Generation(Engine engine, GenerationRequest request, Sequence[] sequences, CancellationToken disconnected)
    {
        (_engine, Request, Sequences, _disconnected) = (engine, request, sequences, disconnected);
        (_aborted, _bornDuring) = (engine.Aborted, engine.Scheduler.CurrentPause);
        _own = engine.CanAbortOne ? new() : null;
        _arrived = engine.Time.GetTimestamp();
        _timed = engine.Knobs.TimeToFirstToken > TimeSpan.Zero || engine.Knobs.InterTokenLatency > TimeSpan.Zero || engine.Knobs.Hang == HangPoint.Request;
        if (request.Adapter is not null)
            engine.Adapters.Count(request.Adapter, 1, 0);
        foreach (var sequence in sequences)
            Longest = Math.Max(Longest, sequence.Length);
    }

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
        if (!_timed && !_engine.Stopping && !_engine.IsDead && _engine.Scheduler.TryEnter(_bornDuring))
        {
            // no time passes between the tokens, so they are counted together
            Entered();
            if (Interrupted())
                return;
            First();
            Advance(Longest);
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
        if (Outcome != Outcome.Running)
            return false;
        if (Interrupted())
            return false;
        if (!_entered || _timed || _engine.Scheduler.CurrentPause is { Freezes: true })
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
        if (Step == 0)
            First();
        Advance(1);
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

    private async ValueTask WaitAsync()
    {
        _linked ??= CancellationTokenSource.CreateLinkedTokenSource(_disconnected, _aborted, _own?.Token ?? default);
        if (!_entered)
        {
            await _engine.Scheduler.EnterAsync(_bornDuring, _linked.Token);
            Entered();
            if (_engine.Knobs.Hang == HangPoint.Request)
                await Task.Delay(Timeout.InfiniteTimeSpan, _engine.Time, _linked.Token);
        }
        // from the schedule and not from the last token: otherwise each timer's delay would add up
        var due = _engine.Knobs.TimeToFirstToken + (_engine.Knobs.InterTokenLatency * Step);
        var left = due + _frozen - _engine.Time.GetElapsedTime(_scheduled);
        if (left > TimeSpan.Zero)
            await Task.Delay(left, _engine.Time, _linked.Token);
        while (_engine.Scheduler.CurrentPause is { Freezes: true } pause)
        {
            var stopped = _engine.Time.GetTimestamp();
            await _engine.Scheduler.HoldAsync(pause, _linked.Token);
            _frozen += _engine.Time.GetElapsedTime(stopped);
        }
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

    private void Entered()
    {
        _entered = true;
        _scheduled = _engine.Time.GetTimestamp();
        _engine.Scheduler.Occupy(Request.PromptTokens);
        if (Request.Adapter is not null)
            _engine.Adapters.Count(Request.Adapter, -1, 1);
        if (_engine.MemoryAway)
            _engine.Die();
        if (!_engine.Garbled)
            return;
        for (var i = 0; i < Sequences.Length; i++)
            Sequences[i] = Sequences[i].Garbled();
    }

    private void First()
    {
        _firstToken = _lastToken = _engine.Time.GetTimestamp();
        CachedTokens = _engine.Prefixes.CachedTokens(Request);
        _engine.Ranks[0].Metrics.FirstToken(
            Seconds(_arrived, _firstToken), Request.PromptTokens, CachedTokens, _engine.Prefixes.Enabled, Sequences.Length);
    }

    private void Advance(int steps)
    {
        var before = CompletionTokens;
        var gaps = Step == 0 ? Sequences.Length : 0;
        Step += steps;
        var tokens = CompletionTokens - before;
        var now = steps == 1 ? _engine.Time.GetTimestamp() : _lastToken;
        _engine.Ranks[0].Metrics.Tokens(tokens, Seconds(_lastToken, now), tokens - gaps);
        _engine.Scheduler.Occupy(tokens);
        _lastToken = now;
        if (Step >= Longest)
            End(Outcome.Finished);
    }

    private void End(Outcome outcome)
    {
        Outcome = outcome;
        var now = _engine.Time.GetTimestamp();
        var scheduled = _entered ? _scheduled : now;
        var first = Step > 0 ? _firstToken : now;
        var last = Step > 0 ? _lastToken : now;
        var times = new RequestTimes(Seconds(_arrived, scheduled), Seconds(scheduled, first), Seconds(first, last), Seconds(_arrived, now));
        var longest = 0;
        for (var i = 0; i < Sequences.Length; i++)
        {
            var (sequence, isLast) = (Sequences[i], (i + 1) % Request.N == 0);
            longest = Math.Max(longest, Done(sequence));
            _engine.Ranks[0].Metrics.Finished(
                outcome is Outcome.EngineDead or Outcome.Failed ? FinishReason.Error : FinishOf(sequence), times, sequence.Prompt.Tokens, Done(sequence),
                Request.MaxTokens, isLast ? Request.N : 0, longest);
            if (isLast)
                longest = 0;
        }
        if (Request.Adapter is not null)
            _engine.Adapters.Count(Request.Adapter, _entered ? 0 : -1, _entered ? -1 : 0);
        if (!_entered)
            return;
        _engine.Scheduler.Occupy(-Request.PromptTokens - CompletionTokens);
        _engine.Scheduler.Leave();
    }

    private double Seconds(long from, long to) => _engine.Time.GetElapsedTime(from, to).TotalSeconds;
}
