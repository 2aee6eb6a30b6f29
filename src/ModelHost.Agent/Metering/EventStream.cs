using System.Buffers;
using System.Runtime.CompilerServices;
using System.Text.Json;
using ModelHost.Agent.Http;

namespace ModelHost.Agent.Metering;

/// <summary>
/// A stream of server-sent events on its way to the client, in whole events: what came of one that is not whole yet is kept. So the count
/// that the gateway asked for can be taken out, and a stream in which the engine breaks off or falls silent ends with an error that a
/// client can read. Before the first byte a failure is thrown, so that it can still be answered with a status.
/// </summary>
/// <param name="engine">The engine's bytes.</param>
/// <param name="call">The call that it answers; its <see cref="MeteredCall.Silence"/> ends a read.</param>
/// <param name="silence">How long nothing may come after the first byte.</param>
internal sealed class EventStream(Stream engine, MeteredCall call, TimeSpan silence) : StreamOver(engine)
{
    /// <summary>Longest event that is kept until it is whole; more of it passes as it comes.</summary>
    internal const int LongestEvent = 1024 * 1024;
    private const int FirstBuffer = 8 * 1024;

    private readonly long _silenceMs = (long)silence.TotalMilliseconds;
    private CancellationTokenSource _silent = call.Silence!;
    private byte[] _held = [];
    // of what is held: the first of it is given away, then comes what may be given, then the beginning of an event
    private int _given;
    private int _whole;
    private int _count;
    private CancellationTokenRegistration _leaving;
    private bool _begun;
    private bool _over;
    private bool _isInLongEvent;
    private long _armedAt;

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (buffer.Length == 0)
            return 0;
        if (_silent.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
            Renew();
        if (_leaving == default && cancellationToken.CanBeCanceled)
            _leaving = cancellationToken.UnsafeRegister(static source => ((CancellationTokenSource)source!).Cancel(), _silent);
        while (true)
        {
            if (_given < _whole)
                return Give(buffer.Span);
            if (_over)
                return 0;
            var into = _count == 0 ? buffer : Room();
            int read;
            try
            {
                var reading = Inner.ReadAsync(into, _silent.Token);
                if (_begun)
                    Arm(force: !reading.IsCompleted);
                read = await reading;
            }
            catch (Exception e) when (_begun && !cancellationToken.IsCancellationRequested && e is IOException or HttpRequestException or OperationCanceledException)
            {
                Break(isLate: e is OperationCanceledException);
                continue;
            }
            if (!_begun && read > 0)
            {
                _begun = true;
                call.Deadline?.CancelAfter(Timeout.InfiniteTimeSpan);
            }
            var given = _count == 0 ? Take(buffer.Span[..read]) : TakeHeld(read);
            if (given > 0)
                return given;
        }
    }

    /// <summary>Takes what was read past what is held: usually whole events.</summary>
    private int Take(Span<byte> bytes)
    {
        if (bytes.Length == 0)
        {
            _over = true;
            return 0;
        }
        if (_isInLongEvent)
        {
            _isInLongEvent = EndOfEvents(bytes) != bytes.Length;
            return PassPiece(bytes);
        }
        var end = EndOfEvents(bytes);
        if (end < bytes.Length)
        {
            bytes[end..].CopyTo(Room(bytes.Length - end).Span);
            _count = bytes.Length - end;
        }
        return Pass(bytes[..end]);
    }

    /// <summary>Takes what was read behind the beginning of an event.</summary>
    private int TakeHeld(int read)
    {
        // what was held has no end of an event, but for one that is cut itself
        var behind = Math.Max(0, _count - 2);
        _count += read;
        var held = _held.AsSpan(0, _count);
        _over = read == 0;
        _isInLongEvent = _count > LongestEvent;
        var end = _over || _isInLongEvent ? _count : EndOfEvents(held[behind..]) is > 0 and var found ? behind + found : 0;
        if (end == 0)
            return 0;
        if (_isInLongEvent)
            call.Usage.Restart();
        var kept = _isInLongEvent ? PassPiece(held) : Pass(held[..end]);
        held[end..].CopyTo(held[kept..]);
        (_whole, _count) = (kept, _count - end + kept);
        return 0;
    }

    private int Give(Span<byte> to)
    {
        var count = Math.Min(to.Length, _whole - _given);
        _held.AsSpan(_given, count).CopyTo(to);
        _given += count;
        if (_given == _whole)
        {
            _held.AsSpan(_whole, _count - _whole).CopyTo(_held);
            (_count, _given, _whole) = (_count - _whole, 0, 0);
        }
        return count;
    }

    /// <summary>Counts whole events that pass, and takes the count out that the client did not ask for.</summary>
    /// <returns>How many bytes are left of them, at their beginning.</returns>
    private int Pass(Span<byte> events)
    {
        CountOutput(events);
        if (events.IndexOf("\"usage\""u8) < 0)
            return events.Length;
        var kept = 0;
        for (var at = 0; at < events.Length;)
        {
            var passing = events.Slice(at, EndOfEvent(events[at..]));
            at += passing.Length;
            if (passing.IndexOf("\"usage\""u8) >= 0)
            {
                call.Usage.Restart();
                call.Usage.Feed(passing);
                if (call.StripsUsage && IsCount(passing))
                    continue;
            }
            passing.CopyTo(events[kept..]);
            kept += passing.Length;
        }
        return kept;
    }

    /// <summary>Counts a piece of an event that is too long to be kept.</summary>
    private int PassPiece(ReadOnlySpan<byte> piece)
    {
        CountOutput(piece);
        call.Usage.Feed(piece);
        return piece.Length;
    }

    private void CountOutput(ReadOnlySpan<byte> bytes) => call.OutputEvents += System.MemoryExtensions.Count(bytes, call.Kind.OutputMark);

    /// <summary>Whether an event is the chunk that tells the count and nothing else.</summary>
    private static bool IsCount(ReadOnlySpan<byte> bytes)
    {
        if (!bytes.StartsWith("data:"u8))
            return false;
        var line = bytes["data:"u8.Length..];
        var reader = new Utf8JsonReader(line[..(line.IndexOf((byte)'\n') is >= 0 and var end ? end : line.Length)]);
        var (noChoices, hasUsage) = (false, false);
        try
        {
            while (reader.Read())
            {
                if (reader is not { TokenType: JsonTokenType.PropertyName, CurrentDepth: 1 })
                    continue;
                var (isChoices, isUsage) = (reader.ValueTextEquals("choices"u8), reader.ValueTextEquals("usage"u8));
                if (!reader.Read())
                    return false;
                if (isChoices)
                    noChoices = reader.TokenType == JsonTokenType.StartArray && reader.Read() && reader.TokenType == JsonTokenType.EndArray;
                else if (isUsage)
                    hasUsage = reader.TokenType == JsonTokenType.StartObject;
                if (reader.TokenType is JsonTokenType.StartObject or JsonTokenType.StartArray)
                    reader.Skip();
            }
        }
        catch (JsonException)
        {
            return false;
        }
        return noChoices && hasUsage;
    }

    /// <summary>Ends a stream whose engine does not go on; the beginning of an event that it left goes with it.</summary>
    private void Break(bool isLate)
    {
        call.IsBroken = true;
        var error = StreamErrors.Events(call.Kind.Shape, isLate ? OpenAiErrors.Timeout(call.Route.PublicName) : OpenAiErrors.Unreachable(call.Route.PublicName));
        if (_isInLongEvent)
            error = [.. "\n\n"u8, .. error]; // a part of that event has been passed on
        (_count, _given, _whole) = (0, 0, 0);
        error.CopyTo(Room(error.Length).Span);
        (_whole, _count, _over) = (error.Length, error.Length, true);
    }

    /// <summary>Sets the end of the wait anew; while there is always something to read not at every read.</summary>
    private void Arm(bool force)
    {
        var now = Environment.TickCount64;
        if (!force && now - _armedAt < _silenceMs / 2)
            return;
        _armedAt = now;
        _silent.CancelAfter(silence);
    }

    /// <summary>The wait ended while nobody read: it was the client that was slow, and not the engine.</summary>
    private void Renew()
    {
        _leaving.Dispose();
        _leaving = default;
        _silent.Dispose();
        call.Silence = _silent = new CancellationTokenSource();
        _armedAt = 0;
    }

    private Memory<byte> Room(int atLeast = 1)
    {
        if (_held.Length - _count < atLeast)
        {
            var larger = ArrayPool<byte>.Shared.Rent(Math.Max(FirstBuffer, Math.Max(2 * _held.Length, _count + atLeast)));
            _held.AsSpan(0, _count).CopyTo(larger);
            Return();
            _held = larger;
        }
        return _held.AsMemory(_count);
    }

    private void Return()
    {
        if (_held.Length > 0)
            ArrayPool<byte>.Shared.Return(_held);
        _held = [];
    }

    /// <summary>Where the last whole event ends.</summary>
    private static int EndOfEvents(ReadOnlySpan<byte> bytes) =>
        bytes.EndsWith("\n\n"u8) || bytes.EndsWith("\n\r\n"u8) ? bytes.Length
        : Math.Max(After(bytes.LastIndexOf("\n\n"u8), 2), After(bytes.LastIndexOf("\n\r\n"u8), 3));

    /// <summary>Where the first event ends.</summary>
    private static int EndOfEvent(ReadOnlySpan<byte> bytes)
    {
        var (bare, returned) = (After(bytes.IndexOf("\n\n"u8), 2), After(bytes.IndexOf("\n\r\n"u8), 3));
        return bare > 0 && (returned == 0 || bare < returned) ? bare : returned > 0 ? returned : bytes.Length;
    }

    private static int After(int index, int length) => index < 0 ? 0 : index + length;

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _leaving.Dispose();
            Return();
            (_count, _given, _whole, _over) = (0, 0, 0, true);
        }
        base.Dispose(disposing);
    }
}
