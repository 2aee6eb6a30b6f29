using System.Globalization;
using System.Runtime.InteropServices;

namespace ModelHost.Agent.Runtimes;

/// <summary>What .NET has no call for: sessions, file descriptors that a new program inherits, signals to groups.</summary>
internal static class Libc
{
    public const int SigTerm = 15;
    public const int SigKill = 9;
    private const int WriteOnly = 1, Create = 0x40, Append = 0x400;
    private const int StandardOutput = 1, StandardError = 2;
    private const int SigPipe = 13;
    private const int OwnerOnly = 0x180; // 0600
    private const int CurrentFolder = -100; // AT_FDCWD
    private const uint RenameExchange = 2;

    /// <summary>Sends a signal to the process group that a process leads.</summary>
    public static bool SignalGroup(int pid, int signal) => kill(-pid, signal) == 0;

    /// <summary>
    /// Makes this process the leader of its own session, sends its output to a file, and becomes another program. Returns only on
    /// failure, with the error number.
    /// </summary>
    public static int BecomeDetached(string outputFile, IReadOnlyList<string> command)
    {
        var file = open(outputFile, WriteOnly | Create | Append, OwnerOnly);
        if (setsid() < 0 || file < 0 || dup2(file, StandardOutput) < 0 || dup2(file, StandardError) < 0)
            return Marshal.GetLastPInvokeError();
        signal(SigPipe, IntPtr.Zero); // .NET ignores it, and what is ignored stays so in the new program
        return execvp(command[0], [.. command, null]) < 0 ? Marshal.GetLastPInvokeError() : 0;
    }

    /// <summary>Gives a file a second name on the same disk.</summary>
    /// <exception cref="IOException">It could not.</exception>
    public static void Link(string existing, string name)
    {
        if (link(existing, name) != 0)
            throw new IOException($"{name} cannot be linked: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");
    }

    /// <summary>Lets two files or folders take each other's place at once; false: not on this disk.</summary>
    public static bool Exchange(string one, string other) => renameat2(CurrentFolder, one, CurrentFolder, other, RenameExchange) == 0;

    /// <summary>Writes all of the disk that a folder is on to it: what was unpacked must be there before it takes its name.</summary>
    public static void SyncDisk(string folder)
    {
        var file = open(folder, 0, 0);
        if (file < 0)
            return;
        _ = syncfs(file);
        _ = close(file);
    }

    /// <summary>When a process began, in the kernel's ticks since boot; null: there is none, or it only waits to be reaped.</summary>
    public static long? StartTicks(int pid)
    {
        try
        {
            var stat = File.ReadAllText($"/proc/{pid.ToString(CultureInfo.InvariantCulture)}/stat");
            // the name may hold blanks and brackets: fields are counted from its end; field 3 is the state, field 22 the start (proc(5))
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return fields[0] is "Z" or "X" ? null : long.Parse(fields[19], CultureInfo.InvariantCulture);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>The variables a process was started with; none: it is gone, or not ours to ask.</summary>
    public static IReadOnlyDictionary<string, string> Environment(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid.ToString(CultureInfo.InvariantCulture)}/environ").Split('\0', StringSplitOptions.RemoveEmptyEntries)
                .Select(pair => pair.Split('=', 2)).Where(pair => pair.Length == 2)
                .GroupBy(pair => pair[0]).ToDictionary(group => group.Key, group => group.Last()[1]);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return new Dictionary<string, string>();
        }
    }

#pragma warning disable IDE1006, SYSLIB1054, CA2101 // the names are libc's; source-generated marshalling has no null-terminated string arrays
    [DllImport("libc", SetLastError = true)]
    private static extern int kill(int pid, int signal);

    [DllImport("libc", SetLastError = true)]
    private static extern int setsid();

    [DllImport("libc", SetLastError = true)]
    private static extern int open([MarshalAs(UnmanagedType.LPUTF8Str)] string path, int flags, int mode);

    [DllImport("libc", SetLastError = true)]
    private static extern int dup2(int from, int to);

    [DllImport("libc", SetLastError = true)]
    private static extern IntPtr signal(int signal, IntPtr handler);

    [DllImport("libc", SetLastError = true)]
    private static extern int execvp(
        [MarshalAs(UnmanagedType.LPUTF8Str)] string file, [MarshalAs(UnmanagedType.LPArray, ArraySubType = UnmanagedType.LPStr)] string?[] arguments);

    [DllImport("libc", SetLastError = true)]
    private static extern int link([MarshalAs(UnmanagedType.LPUTF8Str)] string existing, [MarshalAs(UnmanagedType.LPUTF8Str)] string name);

    [DllImport("libc", SetLastError = true)]
    private static extern int renameat2(
        int fromFolder, [MarshalAs(UnmanagedType.LPUTF8Str)] string from, int toFolder, [MarshalAs(UnmanagedType.LPUTF8Str)] string to, uint flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int syncfs(int file);

    [DllImport("libc", SetLastError = true)]
    private static extern int close(int file);
#pragma warning restore IDE1006, SYSLIB1054, CA2101
}
