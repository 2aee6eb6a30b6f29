using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Net.Http.Headers;
using ModelHost.Agent.Http;
using ModelHost.Agent.Metering;

namespace ModelHost.Gateway;

/// <summary>
/// Finds the field <c>model</c> of a form (RFC 7578) in pieces as they arrive, before or behind its files. It keeps the headers of a part and
/// the short fields that it looks for, never a file.
/// </summary>
/// <param name="boundary">What separates the parts.</param>
internal sealed class MultipartScanner(string boundary) : BodyScanner
{
    /// <summary>Longest boundary (RFC 2046, section 5.1.1).</summary>
    public const int LongestBoundary = 70;

    private const int LongestHeaders = 8 * 1024;
    // the first delimiter stands at the beginning of the body, the others after a line's end: as if one came before the body
    private readonly byte[] _delimiter = Encoding.ASCII.GetBytes("\r\n--" + boundary);
    private readonly List<byte> _kept = [.. "\r\n"u8];
    private Place _place = Place.Before;
    private bool _isModel;
    private bool _isStream;
    private ScanState _failed = ScanState.Reading;

    private enum Place
    {
        /// <summary>Before the first delimiter.</summary>
        Before,
        /// <summary>After a delimiter, where a line's end or the end of the form comes.</summary>
        Delimiter,
        /// <summary>In the headers of a part.</summary>
        Headers,
        /// <summary>In a part's content.</summary>
        Content,
        /// <summary>After the last delimiter.</summary>
        After,
    }

    public override ScanState Scan(ReadOnlySpan<byte> bytes, bool isFinal, out int consumed)
    {
        consumed = bytes.Length;
        Take(bytes);
        if (_failed != ScanState.Reading)
            return _failed;
        if (!isFinal)
            return ScanState.Reading;
        if (_place != Place.After)
            return Fail("the form ends early");
        return Model is null ? ScanState.MissingModel : ScanState.Complete;
    }

    public override OpenAiError Malformed() => OpenAiErrors.InvalidForm(Error.Length > 0 ? Error : "it cannot be read");

    public override ScanState Watch(ReadOnlySpan<byte> bytes)
    {
        Take(bytes);
        return _failed == ScanState.TwoModels ? ScanState.TwoModels : ScanState.Reading; // whether the rest is a form is the engine's to say
    }

    private void Take(ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length > 0 && _failed == ScanState.Reading && _place != Place.After)
        {
            bytes = _place switch
            {
                Place.Before or Place.Content => TakeContent(bytes),
                Place.Delimiter => TakeDelimiter(bytes),
                Place.Headers => TakeHeaders(bytes),
                Place.After => [],
            };
        }
    }

    /// <summary>Takes content up to the next delimiter. Kept is the value of a short field, else what may be the beginning of the delimiter.</summary>
    private ReadOnlySpan<byte> TakeContent(ReadOnlySpan<byte> bytes)
    {
        var isField = _place == Place.Content && (_isModel || _isStream);
        if (!isField && _kept.Count == 0)
        {
            // the usual way through a file
            var start = bytes.IndexOf(_delimiter);
            if (start >= 0)
                return Delimited(bytes[(start + _delimiter.Length)..]);
            Keep(bytes[Math.Max(0, bytes.Length - _delimiter.Length + 1)..]);
            return [];
        }
        var before = _kept.Count;
        var piece = bytes[..Math.Min(bytes.Length, isField ? LongestModel : _delimiter.Length)];
        Keep(piece);
        var kept = CollectionsMarshal.AsSpan(_kept);
        var at = kept.IndexOf(_delimiter);
        if (at >= 0)
        {
            var rest = bytes[(at + _delimiter.Length - before)..];
            if (isField)
                TakeField(kept[..at]);
            return Delimited(rest);
        }
        if (!isField)
        {
            // what may be the beginning of a delimiter: once it is in these bytes alone, the usual way goes on from there
            var tail = Math.Min(_kept.Count, _delimiter.Length - 1);
            if (tail <= piece.Length)
            {
                _kept.Clear();
                return bytes[(piece.Length - tail)..];
            }
            _kept.RemoveRange(0, _kept.Count - tail);
        }
        else if (_kept.Count > LongestModel + _delimiter.Length)
            _failed = _isModel ? ScanState.MissingModel : Fail("the field 'stream' is too long");
        return bytes[piece.Length..];
    }

    private void TakeField(ReadOnlySpan<byte> value)
    {
        var text = Encoding.UTF8.GetString(value);
        if (_isStream)
            Streams = text is "true" or "True" or "1";
        else if (Model is not null)
            _failed = ScanState.TwoModels;
        else if (text.Length == 0 || value.Length > LongestModel || text.Contains('\uFFFD'))
            _failed = ScanState.MissingModel;
        else
            Model = text;
    }

    private ReadOnlySpan<byte> Delimited(ReadOnlySpan<byte> rest)
    {
        _kept.Clear();
        _place = Place.Delimiter;
        (_isModel, _isStream) = (false, false);
        return rest;
    }

    /// <summary>Takes the two bytes after a delimiter; spaces before them are allowed (RFC 2046, section 5.1.1).</summary>
    private ReadOnlySpan<byte> TakeDelimiter(ReadOnlySpan<byte> bytes)
    {
        var b = bytes[0];
        if (_kept.Count == 0 && b is (byte)' ' or (byte)'\t')
            return bytes[1..];
        _kept.Add(b);
        if (_kept.Count == 2)
        {
            var isEnd = _kept is [(byte)'-', (byte)'-'];
            if (!isEnd && _kept is not [(byte)'\r', (byte)'\n'])
                Fail("a boundary is followed by something else than a line's end");
            _place = isEnd ? Place.After : Place.Headers;
            _kept.Clear();
            if (!isEnd)
                _kept.AddRange("\r\n"u8); // headers end with an empty line, also where there are none
        }
        return bytes[1..];
    }

    private ReadOnlySpan<byte> TakeHeaders(ReadOnlySpan<byte> bytes)
    {
        var before = _kept.Count;
        Keep(bytes[..Math.Min(bytes.Length, LongestHeaders)]);
        var kept = CollectionsMarshal.AsSpan(_kept);
        var end = kept.IndexOf("\r\n\r\n"u8);
        if (end < 0)
        {
            if (_kept.Count > LongestHeaders)
                Fail("the headers of a part are too long");
            return bytes[(_kept.Count - before)..];
        }
        var rest = bytes[(end + 4 - before)..];
        foreach (var line in Encoding.UTF8.GetString(kept[..end]).Split("\r\n", StringSplitOptions.RemoveEmptyEntries))
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            if (colon > 0 && line[..colon].Trim().Equals("Content-Disposition", StringComparison.OrdinalIgnoreCase)
                && ContentDispositionHeaderValue.TryParse(line[(colon + 1)..].Trim(), out var disposition))
            {
                var name = HeaderUtilities.RemoveQuotes(disposition.Name).ToString();
                (_isModel, _isStream) = (name == "model", name == "stream");
            }
        }
        _kept.Clear();
        _place = Place.Content;
        return rest;
    }

    private void Keep(ReadOnlySpan<byte> bytes) => _kept.AddRange(bytes);

    private ScanState Fail(string error)
    {
        Error = error;
        return _failed = ScanState.InvalidJson;
    }
}
