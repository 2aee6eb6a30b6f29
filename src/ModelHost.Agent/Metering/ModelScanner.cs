using System.Text.Json;

namespace ModelHost.Agent.Metering;

/// <summary>What a scan has found so far.</summary>
public enum ScanState
{
    /// <summary>More of the body is needed.</summary>
    Reading,
    /// <summary>The body is whole.</summary>
    Complete,
    /// <summary>The body is not what it is called; <see cref="BodyScanner.Error"/> says where.</summary>
    InvalidJson,
    /// <summary>The body is no JSON object, or its <c>model</c> is no string with text.</summary>
    MissingModel,
    /// <summary>The body has two of them, and an engine may take the other one.</summary>
    TwoModels,
    /// <summary><c>stream</c> is neither true nor false: an engine may take it for either.</summary>
    UnclearStream,
    /// <summary><c>stream_options</c> of a stream can be read in several ways, see <see cref="StreamOptions.IsUnclear"/>.</summary>
    UnclearStreamOptions,
}

/// <summary>
/// Finds the field <c>model</c> of a JSON object in pieces as they arrive, and checks on the way that all of it is JSON. Nothing is
/// kept but the reader's state; the caller keeps the bytes that were not consumed.
/// </summary>
/// <param name="countsOnRequest">Whether streams have to be asked for their count, so that it matters what an engine takes for a stream.</param>
/// <param name="needsModel">Whether the model decides where the request goes; without that the field is as any other.</param>
public sealed class ModelScanner(bool countsOnRequest = false, bool needsModel = true) : BodyScanner
{
    private const int MaxDepth = 64;
    private JsonReaderState _state = new(new JsonReaderOptions { MaxDepth = MaxDepth });
    private StreamOptions _options;
    private SecondModelGuard? _guard;
    private bool _started;
    private bool _valueIsModel;
    private bool _valueIsStream;
    private int _depth;
    private int _consumed;
    private JsonTokenType _lastToken;

    /// <summary>Goes on from the last consumed byte with nothing but a guard against a second <c>model</c>.</summary>
    internal SecondModelGuard Guard() =>
        new(_depth, expectsKey: _depth == 1 && _lastToken == JsonTokenType.StartObject, _options.IsInside ? StreamOptions.Unclear : _options, Streams, valueIsStream: _valueIsStream, looksForModel: needsModel);

    /// <inheritdoc/>
    public override ScanState Watch(ReadOnlySpan<byte> bytes)
    {
        var guard = _guard ??= Guard();
        return guard.Finds(bytes) ? ScanState.TwoModels
            : countsOnRequest && guard.IsUnclearStream ? ScanState.UnclearStream
            : countsOnRequest && guard is { EndsAt: >= 0, IsUnclearOptions: true } ? ScanState.UnclearStreamOptions
            : ScanState.Reading;
    }

    /// <inheritdoc/>
    public override bool IsFound => !needsModel || Model is not null;

    /// <inheritdoc/>
    public override bool IsInside => _options.IsInside;

    /// <inheritdoc/>
    public override bool HasEnded => _options.HasEnded;

    /// <inheritdoc/>
    public override BodyEdit? AskForUsage() => Streams ? _options.AskForUsage() : null;

    /// <inheritdoc/>
    public override int AsksForUsageAt => _guard is { EndsAt: >= 0, AsksForNoUsage: true } guard ? guard.EndsAt : -1;

    /// <inheritdoc/>
    public override ScanState Scan(ReadOnlySpan<byte> bytes, bool isFinal, out int consumed)
    {
        var reader = new Utf8JsonReader(bytes, isFinal, _state);
        consumed = 0;
        try
        {
            while (reader.Read())
            {
                if (!_started)
                {
                    _started = true;
                    if (reader.TokenType != JsonTokenType.StartObject)
                    {
                        Error = "it is no object";
                        return needsModel ? ScanState.MissingModel : ScanState.InvalidJson;
                    }
                }
                else if (_valueIsModel)
                {
                    _valueIsModel = false;
                    if (reader.TokenType != JsonTokenType.String || reader.ValueSpan.Length > LongestModel || reader.GetString() is not { Length: > 0 } model)
                        return ScanState.MissingModel;
                    Model = model;
                }
                else if (_valueIsStream)
                {
                    (_valueIsStream, Streams) = (false, reader.TokenType == JsonTokenType.True);
                    if (countsOnRequest && reader.TokenType is not (JsonTokenType.True or JsonTokenType.False or JsonTokenType.Null))
                        return ScanState.UnclearStream;
                }
                else if (reader is { CurrentDepth: 1, TokenType: JsonTokenType.PropertyName })
                {
                    _valueIsModel = needsModel && reader.ValueTextEquals("model"u8);
                    _valueIsStream = !_valueIsModel && reader.ValueTextEquals("stream"u8);
                    if (_valueIsModel && Model is not null)
                        return ScanState.TwoModels;
                }
                _options.See(ref reader, _consumed);
            }
        }
        catch (JsonException e)
        {
            Error = $"line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1}";
            return ScanState.InvalidJson;
        }
        catch (InvalidOperationException)
        {
            Error = "a string is not valid UTF-8";
            return ScanState.InvalidJson;
        }
        consumed = (int)reader.BytesConsumed;
        _consumed += consumed;
        _state = reader.CurrentState;
        _lastToken = reader.TokenType;
        _depth = reader.CurrentDepth + (reader.TokenType is JsonTokenType.StartObject or JsonTokenType.StartArray ? 1 : 0);
        if (countsOnRequest && _options.HasEnded && IsFound && Streams && _options.IsUnclear)
            return ScanState.UnclearStreamOptions;
        return !isFinal ? ScanState.Reading : !IsFound ? ScanState.MissingModel : ScanState.Complete;
    }
}
