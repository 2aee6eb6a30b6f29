using System.Collections.Concurrent;
using ModelHost.Agent.Downloads;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>How far a pull is; written by several downloads at the same time and read for reports.</summary>
internal sealed class PullProgress(Action changed)
{
    private readonly ConcurrentDictionary<string, (long Done, long? Total, bool IsWhole)> _files = new();
    private volatile string _detail = "";
    private volatile bool _isResolved;
    private PullPhase _phase = PullPhase.Queued;

    /// <summary>Where it stands.</summary>
    public PullPhase Phase => _phase;

    /// <summary>Goes on to the next phase.</summary>
    public void Enter(PullPhase phase, string detail = "")
    {
        (_phase, _detail) = (phase, detail);
        changed();
    }

    /// <summary>Says what is worked at.</summary>
    public void Say(string detail) => _detail = detail;

    /// <summary>All files are known now, so that their sizes come to a total.</summary>
    public void Resolved() => _isResolved = true;

    /// <summary>Another candidate takes the place of a file's.</summary>
    public void Drop(string key) => _files.TryRemove(key, out _);

    /// <summary>A file to be downloaded.</summary>
    public IDownloadReport Of(string key, string name, long? size)
    {
        _files[key] = (0, size, false);
        return new FileProgress(this, key, name);
    }

    /// <summary>A file that is there.</summary>
    public void Whole(string key, long size) => _files[key] = (size, size, true);

    /// <summary>The downloads of something that counts them itself.</summary>
    public void Set(long done, long? total)
    {
        _files[""] = (done, total, false);
        _isResolved = true;
    }

    /// <summary>Writes it into a report.</summary>
    public void Write(Pull pull)
    {
        var files = _files.Values.ToArray();
        (pull.Phase, pull.Detail) = (_phase, _detail);
        (pull.DoneBytes, pull.Files, pull.FilesDone) = (files.Sum(file => file.Done), files.Length, files.Count(file => file.IsWhole));
        if (_isResolved && files.All(file => file.Total is not null))
            pull.TotalBytes = files.Sum(file => file.Total!.Value);
        else
            pull.ClearTotalBytes();
    }

    private sealed class FileProgress(PullProgress all, string key, string name) : IDownloadReport
    {
        public void At(long doneBytes, long? totalBytes)
        {
            all._files[key] = (doneBytes, totalBytes ?? all._files.GetValueOrDefault(key).Total, false);
            all._detail = name;
        }

        public void Waits(string why) => all._detail = why;
    }
}
