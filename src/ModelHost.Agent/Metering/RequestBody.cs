using System.Buffers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Agent.Http;

namespace ModelHost.Agent.Metering;

/// <summary>
/// The body of a request whose model has been read: the bytes that were looked at, then the rest as it comes. Small bodies are read and
/// checked whole before anything is forwarded; of larger ones, what is left passes under a guard.
/// </summary>
public sealed class RequestBody : ReadOnlyStream
{
    /// <summary>Up to here a body is read whole first.</summary>
    private const int WholeUpTo = 4 * 1024 * 1024;
    private const int FirstBuffer = 16 * 1024;

    private readonly Stream _rest;
    private byte[] _buffer;
    private int _filled;
    private int _scanned;
    private int _served;
    private readonly BodyScanner _scanner;
    private bool _ended;
    private bool _isWhole;
    private bool _watches;
    private bool _mayAsk;
    private ReadOnlyMemory<byte> _behind;

    private RequestBody(Stream rest, long? length, BodyScanner scanner)
    {
        (_rest, _scanner) = (rest, scanner);
        _buffer = ArrayPool<byte>.Shared.Rent((int)Math.Clamp(length + 1 ?? FirstBuffer, 1, FirstBuffer));
    }

    /// <summary>The model that the request asks for.</summary>
    public string Model => _scanner.Model!;

    /// <summary>The call that it belongs to; null: none yet.</summary>
    public MeteredCall? Call { get; set; }

    /// <summary>Whether it asks for a stream, as far as it was read.</summary>
    public bool Streams => _scanner.Streams;

    /// <summary>Its length as it is forwarded; null: it is not known.</summary>
    public long? KnownLength => _isWhole ? _filled : null;

    /// <summary>Whether something may yet be put into it, so that the length that it came with says nothing.</summary>
    public bool MayGrow => _mayAsk;

    /// <summary>Whether the count of a stream is asked for in it, which its sender did not.</summary>
    public bool AsksForUsage { get; private set; }

    /// <summary>Reads until the model is known and the body, if it is not large, is known to be whole.</summary>
    /// <param name="body">Its bytes.</param>
    /// <param name="length">Their number, if it was said.</param>
    /// <param name="maxModelOffset">Bytes within which the model must come.</param>
    /// <param name="cancellationToken">Ends the reading.</param>
    /// <param name="scanner">Finds the model; null: in a JSON object.</param>
    /// <returns>The body, or the status and error to answer with.</returns>
    public static async Task<(RequestBody? Body, int Status, OpenAiError? Error)> ReadAsync(
        Stream body, long? length, int maxModelOffset, CancellationToken cancellationToken, BodyScanner? scanner = null)
    {
        var read = new RequestBody(body, length, scanner ?? new ModelScanner());
        try
        {
            var (status, error) = await read.FindModelAsync(maxModelOffset, cancellationToken);
            if (error is null)
                return (read, 0, null);
            await read.DisposeAsync();
            return (null, status, error);
        }
        catch
        {
            await read.DisposeAsync();
            throw;
        }
    }

    private async Task<(int Status, OpenAiError? Error)> FindModelAsync(int maxModelOffset, CancellationToken cancellationToken)
    {
        var nextScan = 1;
        while (true)
        {
            if (_filled == _buffer.Length)
                Grow();
            var read = await _rest.ReadAsync(_buffer.AsMemory(_filled), cancellationToken);
            _filled += read;
            _ended = read == 0;
            // a long token is scanned from its beginning each time: not before twice as much of it is there
            var overdue = !_scanner.IsFound && _filled > maxModelOffset;
            if (!_ended && !overdue && _filled - _scanned < nextScan)
                continue;
            var state = _scanner.Scan(_buffer.AsSpan(_scanned, _filled - _scanned), _ended, out var consumed);
            _scanned += consumed;
            nextScan = Math.Max(1, 2 * (_filled - _scanned));
            _isWhole = state == ScanState.Complete;
            if (state == ScanState.Complete || (state == ScanState.Reading && _scanner.IsFound && _filled > WholeUpTo && (!_scanner.IsInside || _filled > maxModelOffset)))
                return default;
            if (state != ScanState.Reading)
                return (StatusCodes.Status400BadRequest, ToError(state));
            if (overdue && !_scanner.IsFound)
                return (StatusCodes.Status413PayloadTooLarge, OpenAiErrors.TooLarge());
        }
    }

    /// <summary>
    /// Asks, in the bytes that go to the engine, for the count of tokens of a stream whose sender did not ask for it. Of a body that is not
    /// read whole it is known only at its end whether that is needed.
    /// </summary>
    public void AskForUsage()
    {
        if (!_isWhole)
            _mayAsk = true; // also when its end is near: what follows it is not known, nor is its length
        if ((_isWhole || _scanner.HasEnded) && _scanner.AskForUsage() is { } edit)
            Edit(edit);
    }

    /// <summary>
    /// Gives a field of the outermost object the name that the engine has for it, where the object has none of some others. A body that is not read whole is left
    /// as it is.
    /// </summary>
    /// <param name="field">The field.</param>
    /// <param name="name">Its name at the engine; itself among the others.</param>
    /// <param name="other">A further field that says the same.</param>
    public void Rename(ReadOnlySpan<byte> field, string name, ReadOnlySpan<byte> other)
    {
        if (!_isWhole)
            return;
        var reader = new Utf8JsonReader(_buffer.AsSpan(0, _filled), new JsonReaderOptions { MaxDepth = 64 });
        BodyEdit? edit = null;
        while (reader.Read())
        {
            if (reader is not { CurrentDepth: 1, TokenType: JsonTokenType.PropertyName })
                continue;
            if (reader.ValueTextEquals(name) || reader.ValueTextEquals(other))
                return;
            if (reader.ValueTextEquals(field))
                edit = new BodyEdit((int)reader.TokenStartIndex, reader.ValueSpan.Length + 2, Encoding.UTF8.GetBytes($"\"{name}\""));
        }
        if (edit is { } found)
            Put(found);
    }

    private void Edit(BodyEdit edit)
    {
        Put(edit);
        AsksForUsage = true;
    }

    private void Put(BodyEdit edit)
    {
        var grows = edit.Text.Length - edit.Removes;
        while (_filled + grows > _buffer.Length)
            Grow();
        var behind = edit.At + edit.Removes;
        _buffer.AsSpan(behind, _filled - behind).CopyTo(_buffer.AsSpan(behind + grows));
        edit.Text.CopyTo(_buffer, edit.At);
        _filled += grows;
    }

    /// <inheritdoc/>
    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (!_ended && !_watches)
        {
            _watches = true;
            Check(_buffer.AsSpan(_scanned, _filled - _scanned));
            if (_mayAsk && _scanner.AsksForUsageAt is >= 0 and var at)
                Edit(new BodyEdit(_scanned + at, 0, BodyEdit.Last));
        }
        if (_served < _filled)
        {
            var count = Math.Min(buffer.Length, _filled - _served);
            _buffer.AsMemory(_served, count).CopyTo(buffer);
            _served += count;
            return count;
        }
        if (_behind.Length > 0)
        {
            var count = Math.Min(buffer.Length, _behind.Length);
            _behind[..count].CopyTo(buffer);
            _behind = _behind[count..];
            return count;
        }
        if (_ended)
            return 0;
        var read = await _rest.ReadAsync(buffer, cancellationToken);
        _ended = read == 0 && buffer.Length > 0;
        Check(buffer.Span[..read]);
        if (!_mayAsk || AsksForUsage || _scanner.AsksForUsageAt is not (>= 0 and var end))
            return read;
        AsksForUsage = true;
        _behind = (byte[])[.. BodyEdit.Last, .. buffer.Span[end..read]];
        return end > 0 ? end : await ReadAsync(buffer, cancellationToken);
    }

    private void Check(ReadOnlySpan<byte> bytes)
    {
        if (_scanner.Watch(bytes) is not ScanState.Reading and var state)
            throw new MalformedBodyException(ToError(state));
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && _buffer.Length > 0)
        {
            ArrayPool<byte>.Shared.Return(_buffer);
            (_buffer, _filled, _served) = ([], 0, 0);
        }
        base.Dispose(disposing);
    }

    private OpenAiError ToError(ScanState state) => state switch
    {
        ScanState.TwoModels => OpenAiErrors.TwoModels(),
        ScanState.MissingModel => OpenAiErrors.MissingModel(),
        ScanState.UnclearStream => OpenAiErrors.UnclearStream(),
        ScanState.UnclearStreamOptions => OpenAiErrors.UnclearStreamOptions(),
        ScanState.InvalidJson or ScanState.Reading or ScanState.Complete => _scanner.Malformed(),
    };

    private void Grow()
    {
        var larger = ArrayPool<byte>.Shared.Rent(_buffer.Length * 2);
        _buffer.AsSpan(0, _filled).CopyTo(larger);
        ArrayPool<byte>.Shared.Return(_buffer);
        _buffer = larger;
    }
}

/// <summary>A large body turned out to be malformed after its forwarding had begun.</summary>
public sealed class MalformedBodyException(OpenAiError error) : IOException("the request body is malformed")
{
    /// <summary>What the client is told.</summary>
    public OpenAiError Error => error;
}
