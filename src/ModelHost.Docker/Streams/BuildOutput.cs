using System.Text;
using System.Text.Json;
using ModelHost.Docker.Wire;

namespace ModelHost.Docker.Streams;

/// <summary>Makes lines of what a build says, and finds the image's id in it.</summary>
internal sealed class BuildOutput(Action<string> line)
{
    /// <summary>Characters after which a line is split.</summary>
    public const int MaxLine = 16 << 10;

    private const string Built = "Successfully built ";

    private readonly StringBuilder _line = new();
    private string? _named;
    private string? _said;

    /// <summary>The image's id, in full unless only the engine's last words tell it; null while it has not.</summary>
    public string? ImageId => _named ?? _said;

    public void Apply(StreamMessage message)
    {
        // every stage of the Dockerfile has one: the last is the image
        if (message.Aux.ValueKind == JsonValueKind.Object && message.Aux.TryGetProperty("ID", out var id) && id.ValueKind == JsonValueKind.String)
            _named = id.GetString();
        Append(message.Stream ?? "");
        // the pull of an image to build on; its many numbers are left out
        if (message.Status is { } status && message.Progress is null or { Current: null or 0, Total: null or 0 })
        {
            Complete();
            line(message.Id is null ? status : $"{message.Id}: {status}");
        }
    }

    /// <summary>No more will come: what is there is the last line.</summary>
    public void Complete()
    {
        if (_line.Length > 0)
            Emit(_line.Length);
    }

    private void Append(ReadOnlySpan<char> text)
    {
        while (!text.IsEmpty)
        {
            // only when there is more: a line of just that length is one line
            if (_line.Length == MaxLine && text[0] != '\n')
                Emit(char.IsHighSurrogate(_line[^1]) ? MaxLine - 1 : MaxLine);
            var part = text[..Math.Min(text.Length, MaxLine - _line.Length)];
            var newline = text.IndexOf('\n');
            if (newline >= 0 && newline <= part.Length)
            {
                _line.Append(text[..newline]);
                Emit(_line.Length);
                text = text[(newline + 1)..];
                continue;
            }
            _line.Append(part);
            text = text[part.Length..];
        }
    }

    private void Emit(int count)
    {
        var text = _line.ToString(0, count);
        _line.Remove(0, count);
        if (text.StartsWith(Built, StringComparison.Ordinal))
            _said = text[Built.Length..].Trim();
        line(text);
    }
}
