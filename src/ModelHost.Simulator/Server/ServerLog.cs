using System.Globalization;
using System.Net;
using System.Threading.Channels;

namespace ModelHost.Simulator.Server;

/// <summary>One line of the access log, formatted when it is written and not in the request.</summary>
internal readonly record struct AccessEntry(IPAddress? Address, int Port, string Method, string Target, int Status);

/// <summary>
/// The two output streams of the server. Load lines are written and flushed at once, so that a reader follows the phases. Access lines
/// go through a bounded queue to one writer: a slow reader of the log costs lines, never requests.
/// </summary>
internal sealed class ServerLog : IAsyncDisposable
{
    private readonly TextWriter _output;
    private readonly TextWriter _error;
    private readonly TimeProvider _time;
    private readonly Lock _gate = new();
    private readonly Channel<AccessEntry> _access =
        Channel.CreateBounded<AccessEntry>(new BoundedChannelOptions(4096) { SingleReader = true, FullMode = BoundedChannelFullMode.Wait });

    private readonly Task _writer;
    private readonly string _apiPrefix;
    private readonly string _enginePrefix;

    public ServerLog(TextWriter output, TextWriter error, TimeProvider time, int processId, string engineName)
    {
        (_output, _error, _time, ProcessId) = (output, error, time, processId);
        // One process plays both parts, and an invented id could be that of a stranger's process: both carry the real one.
        _apiPrefix = $"(APIServer pid={processId}) ";
        _enginePrefix = $"({engineName} pid={processId}) ";
        _writer = Task.Run(WriteAccessLinesAsync);
    }

    public int ProcessId { get; }

    /// <summary>A line of the front end; none when the release has no such line.</summary>
    public void Api(string source, string? text, string level = "INFO") => Write(_output, text is null ? null : $"{_apiPrefix}{Head(source, level)}{text}");

    /// <inheritdoc cref="Api"/>
    public void Engine(string source, string? text, string level = "INFO") => Write(_output, text is null ? null : $"{_enginePrefix}{Head(source, level)}{text}");

    /// <summary>A line of the HTTP server, which has no time and no source.</summary>
    public void Uvicorn(string text, string level = "INFO") => Write(_output, $"{_apiPrefix}{(level + ":").PadRight(10)}{text}");

    /// <summary>Lines of a traceback that nobody caught, on standard error.</summary>
    public void ApiError(params ReadOnlySpan<string> lines) => WriteError(_apiPrefix, lines);

    /// <inheritdoc cref="ApiError"/>
    public void EngineError(params ReadOnlySpan<string> lines) => WriteError(_enginePrefix, lines);

    /// <summary>One state of a progress bar: starts with a carriage return, and only the last one ends the line.</summary>
    public void Progress(string text, bool first, bool last)
    {
        lock (_gate)
        {
            _error.Write($"{(first ? _enginePrefix : "")}\r{text}{(last ? "\n" : "")}");
            _error.Flush();
        }
    }

    public void Access(in AccessEntry entry) => _access.Writer.TryWrite(entry);

    /// <summary>Ends the access log and waits until its last line is out.</summary>
    public async ValueTask DisposeAsync()
    {
        _access.Writer.TryComplete();
        await _writer;
    }

    private string Head(string source, string level) =>
        string.Create(CultureInfo.InvariantCulture, $"{level} {_time.GetLocalNow():MM-dd HH:mm:ss} [{source}] ");

    private void Write(TextWriter to, string? line)
    {
        if (line is null)
            return;
        lock (_gate)
        {
            to.Write(line);
            to.Write('\n');
            to.Flush();
        }
    }

    private void WriteError(string prefix, ReadOnlySpan<string> lines)
    {
        foreach (var line in lines)
            Write(_error, prefix + line);
    }

    private async Task WriteAccessLinesAsync()
    {
        while (await _access.Reader.WaitToReadAsync())
            lock (_gate)
            {
                // one flush for a burst
                for (var i = 0; i < 256 && _access.Reader.TryRead(out var entry); i++)
                {
                    _output.Write($"{_apiPrefix}INFO:     {entry.Address}:{entry.Port} - \"{entry.Method} {entry.Target} HTTP/1.1\" ");
                    _output.Write($"{entry.Status} {Reasons.Of(entry.Status)}\n");
                }
                _output.Flush();
            }
    }
}
