using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace ModelHost.Agent.Engines;

/// <summary>
/// The log file of one run. A sidecar tells how far the engine's output has been taken over, so that after a crash no line is missing
/// or there twice: what was written after the last mark is cut off and read from the engine again.
/// </summary>
internal sealed partial class RunLog : IDisposable
{
    private const int MaxTailBytes = 4 * 1024 * 1024;
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    private readonly string _path;
    private readonly long _maxBytes;
    private readonly Redactor _redactor;
    private readonly TimeProvider _time;
    private readonly Lock _lock = new();
    private FileStream _file;

    /// <summary>Opens the log of a run, new or after a restart.</summary>
    public RunLog(string path, long maxBytes, Redactor redactor, TimeProvider time)
    {
        (_path, _maxBytes, _redactor, _time) = (path, maxBytes, redactor, time);
        var folder = Path.GetDirectoryName(path)!;
        foreach (var made in (string[])[Path.GetDirectoryName(folder)!, folder]) // the mode counts for the last one only
            Directory.CreateDirectory(made, OwnerOnly | UnixFileMode.UserExecute);
        (var length, Position) = ReadMark();
        _file = Open();
        if (length is { } known && known < _file.Length)
            _file.SetLength(known);
        _file.Seek(0, SeekOrigin.End);
    }

    /// <summary>Where in the engine's output to go on; null: from the beginning.</summary>
    public string? Position { get; private set; }

    /// <summary>Writes the pieces of one line of output.</summary>
    public void Append(string text, DateTimeOffset? at, string? position) => Write(() =>
    {
        foreach (var piece in text.Split('\r', StringSplitOptions.RemoveEmptyEntries))
        {
            var clean = _redactor.Clean(Ansi().Replace(piece, "")).TrimEnd();
            if (clean.Length == 0 || Noise().IsMatch(clean))
                continue;
            var stamp = (at ?? _time.GetUtcNow()).UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture);
            _file.Write(Encoding.UTF8.GetBytes($"[{stamp}] {clean}\n"));
        }
        Position = position ?? Position;
        if (_file.Position > _maxBytes / 2)
            Rotate();
    });

    /// <summary>Makes sure that what was written stays, and marks how far it goes.</summary>
    public void Mark() => Write(() =>
    {
        _file.Flush();
        WriteMark();
    });

    /// <summary>The last lines, oldest first.</summary>
    public IReadOnlyList<string> Tail(int count)
    {
        Write(() => _file.Flush());
        return ReadTail(_path, count);
    }

    /// <summary>The last lines of a log file, oldest first; none if there is no such file.</summary>
    public static IReadOnlyList<string> ReadTail(string path, int count)
    {
        var lines = LastLines(path, count);
        return lines.Count < count ? [.. LastLines(Older(path), count - lines.Count), .. lines] : lines;
    }

    /// <summary>Deletes the logs of all runs in a deployment's folder but the newest.</summary>
    public static void DeleteOlder(string folder, int kept)
    {
        if (!Directory.Exists(folder))
            return;
        foreach (var log in new DirectoryInfo(folder).EnumerateFiles("*.log").OrderByDescending(file => file.LastWriteTimeUtc).Skip(kept).ToArray())
        {
            foreach (var path in (string[])[log.FullName, Older(log.FullName), log.FullName + ".pos"])
                File.Delete(path);
        }
    }

    /// <summary>Opens the files of the log, older first; they stay what they are when the log is rotated.</summary>
    public IReadOnlyList<FileStream> OpenParts()
    {
        IReadOnlyList<FileStream> parts = [];
        Write(() =>
        {
            _file.Flush();
            parts = OpenParts(_path);
        });
        return parts;
    }

    /// <summary>Opens the files of a log that nobody writes any more, older first; none if there is no such log.</summary>
    public static IReadOnlyList<FileStream> OpenParts(string path)
    {
        var parts = new List<FileStream>();
        foreach (var part in (string[])[Older(path), path])
        {
            if (File.Exists(part))
                parts.Add(new FileStream(part, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
        }
        return parts;
    }

    public void Dispose() => Write(() =>
    {
        _file.Flush();
        WriteMark();
        _file.Dispose();
    });

    /// <summary>A full disk costs lines of the log, and never an engine.</summary>
    private void Write(Action write)
    {
        lock (_lock)
        {
            try
            {
                // whoever asks for the last lines may come a moment after the end
                if (_file.CanWrite)
                    write();
            }
            catch (IOException)
            {
                // what could not be written is tried again with the next line, as far as it is still buffered
            }
        }
    }

    private static List<string> LastLines(string path, int count)
    {
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            var start = Math.Max(0, file.Length - MaxTailBytes);
            file.Seek(start, SeekOrigin.Begin);
            using var reader = new StreamReader(file, Encoding.UTF8);
            if (start > 0)
                reader.ReadLine(); // most likely a broken one
            var lines = new Queue<string>();
            while (reader.ReadLine() is { } line)
            {
                lines.Enqueue(line);
                if (lines.Count > count)
                    lines.Dequeue();
            }
            return [.. lines];
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return [];
        }
    }

    private void Rotate()
    {
        // marked before as well: whoever is killed in between would read what is in the older file a second time
        _file.Flush();
        WriteMark();
        if (File.Exists(_path)) // somebody may have taken it away
            File.Move(_path, Older(_path), overwrite: true);
        var next = Open();
        _file.Dispose();
        _file = next;
        WriteMark();
    }

    private static string Older(string path) => path + ".1";

    private FileStream Open() => new(_path, new FileStreamOptions
    {
        Mode = FileMode.OpenOrCreate,
        Access = FileAccess.Write,
        Share = FileShare.ReadWrite | FileShare.Delete,
        UnixCreateMode = OwnerOnly,
    });

    private string MarkPath => _path + ".pos";

    private void WriteMark()
    {
        var temporary = MarkPath + ".new";
        var mark = string.Create(CultureInfo.InvariantCulture, $"{_file.Position}\n{Position}\n");
        using (var file = new FileStream(temporary, new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, UnixCreateMode = OwnerOnly }))
            file.Write(Encoding.UTF8.GetBytes(mark));
        File.Move(temporary, MarkPath, overwrite: true);
    }

    private (long? Length, string? Position) ReadMark()
    {
        if (!File.Exists(MarkPath))
            return (File.Exists(_path) ? 0 : null, null);
        var lines = File.ReadAllLines(MarkPath);
        return lines is [var length, var position] && long.TryParse(length, NumberStyles.None, CultureInfo.InvariantCulture, out var known)
            ? (known, position.Length > 0 ? position : null) : (0, null);
    }

    // colours and cursor movement
    [GeneratedRegex(@"\x1b\[[0-9;?]*[A-Za-z]")]
    private static partial Regex Ansi();

    // our own probes, every few seconds
    [GeneratedRegex("\"(GET|HEAD) /(metrics|health) HTTP/1\\.[01]\" 200")]
    private static partial Regex Noise();
}
