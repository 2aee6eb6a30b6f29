using System.Globalization;
using System.Text;

namespace ModelHost.Simulator.Gpu;

/// <summary>
/// The memory this process holds on simulated GPUs, told to other processes in a file of the bench's folder. The file is locked as long
/// as the process lives, so a reader who can lock it exclusively knows that its owner is dead, however it died.
/// </summary>
internal sealed class GpuHold : IDisposable
{
    /// <summary>What a driver shows as used on a GPU that nobody uses.</summary>
    public const long BaseMib = 4;

    private readonly string _directory;
    private readonly string _path;
    private readonly FileStream _file;
    private readonly int _processId;
    private readonly string _ramPath;
    private readonly IReadOnlyList<string> _names;
    private int _written;

    private GpuHold(string directory, IReadOnlyList<GpuDevice> devices, IReadOnlyList<string> names, int processId)
    {
        (_directory, _processId, _names, Devices) = (directory, processId, names, devices);
        var folder = Directory.CreateDirectory(Path.Combine(directory, "holds")).FullName;
        _path = Path.Combine(folder, $"{Guid.NewGuid():N}.csv");
        _ramPath = Path.Combine(directory, "ram", Path.GetFileName(_path));
        // Locked under another name first: a reader that tries its exclusive lock in between would make this one fail.
        var temporary = Path.ChangeExtension(_path, ".new");
        // FileShare.Read takes a shared flock on Linux, which keeps an exclusive one out
        _file = new FileStream(temporary, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0);
        File.Move(temporary, _path);
    }

    /// <summary>The GPUs this server computes on.</summary>
    public IReadOnlyList<GpuDevice> Devices { get; }

    /// <summary>Starts holding nothing on these GPUs.</summary>
    /// <param name="directory">The bench's folder.</param>
    /// <param name="devices">The GPUs.</param>
    /// <param name="names">The name of the process on each of them.</param>
    /// <param name="processId">The id under which they hold memory.</param>
    public static GpuHold Open(string directory, IReadOnlyList<GpuDevice> devices, IReadOnlyList<string> names, int processId) =>
        new(directory, devices, names, processId);

    /// <summary>Free memory of a GPU: its total less the base and what living processes, this one too, hold on it.</summary>
    public long FreeMib(GpuDevice device) => device.TotalMib - BaseMib - Directory.EnumerateFiles(Path.Combine(_directory, "holds"), "*.csv")
        .Where(path => path == _path || IsAlive(path))
        .SelectMany(Lines)
        .Select(line => line.Split(','))
        .Where(fields => fields.Length == 4 && fields[0] == device.Uuid)
        .Sum(fields => long.Parse(fields[3], CultureInfo.InvariantCulture));

    /// <summary>Says that this much is held on each of the GPUs.</summary>
    public void Set(long usedMib)
    {
        var text = new StringBuilder();
        for (var rank = 0; rank < Devices.Count; rank++)
            text.Append(CultureInfo.InvariantCulture,
                $"{Devices[rank].Uuid},{_processId},{_names[rank]},{usedMib}\n");
        // One write for all, never shorter than the last: a reader sees the old lines or the new ones. Blank lines fill up.
        var bytes = Encoding.ASCII.GetBytes(text.ToString().PadRight(_written, '\n'));
        RandomAccess.Write(_file.SafeFileHandle, bytes, 0);
        _written = bytes.Length;
    }

    /// <summary>Says how much RAM the copy of the weights takes: <c>pid,process_name,used_mib</c> in the folder <c>ram</c>, under the hold's name.</summary>
    public void SetRam(long usedMib)
    {
        if (usedMib == 0)
        {
            if (File.Exists(_ramPath))
                File.Delete(_ramPath);
            return;
        }
        Directory.CreateDirectory(Path.GetDirectoryName(_ramPath)!);
        File.WriteAllText(_ramPath, string.Create(CultureInfo.InvariantCulture, $"{_processId},VLLM::EngineCore,{usedMib}\n"));
    }

    public void Dispose()
    {
        SetRam(0);
        File.Delete(_path);
        _file.Dispose();
    }

    private static IEnumerable<string> Lines(string path)
    {
        try
        {
            // written to while it is read, so the reader must allow a writer
            using var reader = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
            return reader.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries);
        }
        catch (IOException)
        {
            return [];
        }
    }

    private static bool IsAlive(string path)
    {
        try
        {
            using var probe = new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
            return false;
        }
        catch (FileNotFoundException)
        {
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }
}
