using System.Text.Json;

namespace ModelHost.Gateway;

/// <summary>What a scan has found so far.</summary>
internal enum ScanState
{
    /// <summary>More of the body is needed.</summary>
    Reading,
    /// <summary>The body is one JSON object, whole.</summary>
    Complete,
    /// <summary>The body is not JSON; <see cref="ModelScanner.Error"/> says where.</summary>
    InvalidJson,
    /// <summary>The body is JSON but no object, or its <c>model</c> is no string with text.</summary>
    MissingModel,
    /// <summary>The body has two of them, and an engine may take the other one.</summary>
    TwoModels,
}

/// <summary>
/// Finds the field <c>model</c> of a JSON object in pieces as they arrive, and checks on the way that all of it is JSON. Nothing is
/// kept but the reader's state; the caller keeps the bytes that were not consumed.
/// </summary>
internal struct ModelScanner
{
    private const int MaxDepth = 64;
    private const int MaxModelLength = 512;
    private JsonReaderState _state;
    private bool _started;
    private bool _valueIsModel;
    private bool _valueIsStream;
    private int _depth;
    private JsonTokenType _lastToken;

    public ModelScanner() => _state = new JsonReaderState(new JsonReaderOptions { MaxDepth = MaxDepth });

    /// <summary>The model asked for; null: not found yet.</summary>
    public string? Model { get; private set; }

    /// <summary>Whether the body asks for a stream, as far as it has been scanned; of several such fields an engine takes the last.</summary>
    public bool Streams { get; private set; }

    /// <summary>Where the body stopped being JSON.</summary>
    public string Error { get; private set; } = "";

    /// <summary>Goes on from the last consumed byte with nothing but a guard against a second <c>model</c>.</summary>
    public readonly SecondModelGuard Guard() => new(_depth, expectsKey: _depth == 1 && _lastToken == JsonTokenType.StartObject);

    /// <summary>Scans on.</summary>
    /// <param name="bytes">What follows the bytes consumed so far.</param>
    /// <param name="isFinal">Whether nothing follows.</param>
    /// <param name="consumed">How many of the bytes need not be shown again.</param>
    public ScanState Scan(ReadOnlySpan<byte> bytes, bool isFinal, out int consumed)
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
                        return ScanState.MissingModel;
                }
                else if (_valueIsModel)
                {
                    _valueIsModel = false;
                    if (reader.TokenType != JsonTokenType.String || reader.ValueSpan.Length > MaxModelLength || reader.GetString() is not { Length: > 0 } model)
                        return ScanState.MissingModel;
                    Model = model;
                }
                else if (_valueIsStream)
                    (_valueIsStream, Streams) = (false, reader.TokenType == JsonTokenType.True);
                else if (reader is { CurrentDepth: 1, TokenType: JsonTokenType.PropertyName })
                {
                    _valueIsModel = reader.ValueTextEquals("model"u8);
                    _valueIsStream = !_valueIsModel && reader.ValueTextEquals("stream"u8);
                    if (_valueIsModel && Model is not null)
                        return ScanState.TwoModels;
                }
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
        _state = reader.CurrentState;
        _lastToken = reader.TokenType;
        _depth = reader.CurrentDepth + (reader.TokenType is JsonTokenType.StartObject or JsonTokenType.StartArray ? 1 : 0);
        return !isFinal ? ScanState.Reading : Model is null ? ScanState.MissingModel : ScanState.Complete;
    }
}
