using System.Text.Json;

namespace ModelHost.Agent.Metering;

/// <summary>
/// Where a body says whether its stream is to tell the count of tokens (<c>stream_options.include_usage</c>), to change just that where it
/// says no or nothing.
/// </summary>
internal struct StreamOptions
{
    private int _given;
    private int _depth;
    private bool _valueIsOptions;
    private bool _valueIsUsage;
    private bool _isOther;
    private bool _isAsked;
    private int _null;
    private int _open;
    private bool _isEmpty;
    private (int At, int Length) _usage;
    private int _end;

    /// <summary>
    /// Whether it is given in a way that an engine may read otherwise than the gateway: twice, or with something else than an object in which
    /// <c>include_usage</c> is true, false or null. Such a stream would not be counted.
    /// </summary>
    public readonly bool IsUnclear => _given > 1 || _isOther;

    /// <summary>Given in a way that cannot be read.</summary>
    public static StreamOptions Unclear => new() { _isOther = true };

    /// <summary>Whether the count is asked for.</summary>
    public readonly bool IsAsked => _isAsked;

    /// <summary>Whether they have begun and not ended.</summary>
    public readonly bool IsInside => _depth > 0 || _valueIsOptions;

    /// <summary>Whether the body's object has ended.</summary>
    public readonly bool HasEnded => _end > 0;

    /// <summary>Takes a whole object that has the field.</summary>
    /// <returns>Whether it is JSON.</returns>
    public bool Read(ReadOnlySpan<byte> json)
    {
        var reader = new Utf8JsonReader(json);
        try
        {
            while (reader.Read())
                See(ref reader, 0);
            return true;
        }
        catch (JsonException)
        {
            return false;
        }
    }

    /// <summary>Takes the next token.</summary>
    /// <param name="reader">Stands at it.</param>
    /// <param name="before">Bytes of the body before those of the reader.</param>
    public void See(ref Utf8JsonReader reader, int before)
    {
        var at = before + (int)reader.TokenStartIndex;
        if (_depth > 0)
        {
            SeeInside(ref reader, at);
            return;
        }
        if (_valueIsOptions)
        {
            _valueIsOptions = false;
            switch (reader.TokenType)
            {
                case JsonTokenType.Null:
                    _null = at;
                    break;
                case JsonTokenType.StartObject:
                    (_open, _isEmpty, _depth) = (at, true, 1);
                    break;
                default:
                    _isOther = true;
                    break;
            }
        }
        else if (reader is { CurrentDepth: 1, TokenType: JsonTokenType.PropertyName } && reader.ValueTextEquals("stream_options"u8))
        {
            _given++;
            _valueIsOptions = true;
        }
        else if (reader is { CurrentDepth: 0, TokenType: JsonTokenType.EndObject })
            _end = at;
    }

    private void SeeInside(ref Utf8JsonReader reader, int at)
    {
        if (reader.TokenType is JsonTokenType.EndObject or JsonTokenType.EndArray)
        {
            _depth--;
            return;
        }
        if (_valueIsUsage)
        {
            _valueIsUsage = false;
            _isAsked = reader.TokenType == JsonTokenType.True;
            _isOther |= reader.TokenType is not (JsonTokenType.True or JsonTokenType.False or JsonTokenType.Null) || _usage.Length > 0;
            _usage = (at, reader.TokenType == JsonTokenType.False ? 5 : 4);
        }
        else if (_depth == 1)
        {
            _isEmpty = false;
            _valueIsUsage = reader.TokenType == JsonTokenType.PropertyName && reader.ValueTextEquals("include_usage"u8);
        }
        if (reader.TokenType is JsonTokenType.StartObject or JsonTokenType.StartArray)
            _depth++;
    }

    /// <summary>What to change so that the count is asked for; null: it is already, or what stands there is unclear.</summary>
    public readonly BodyEdit? AskForUsage() =>
        _given == 0 ? new BodyEdit(_end, 0, BodyEdit.Last)
        : IsUnclear || _isAsked ? null
        : _null > 0 ? new BodyEdit(_null, 4, "{\"include_usage\":true}"u8.ToArray())
        : _usage.Length > 0 ? new BodyEdit(_usage.At, _usage.Length, "true"u8.ToArray())
        : new BodyEdit(_open + 1, 0, _isEmpty ? "\"include_usage\":true"u8.ToArray() : "\"include_usage\":true,"u8.ToArray());
}
