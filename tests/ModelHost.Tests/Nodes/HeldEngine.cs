using ModelHost.Agent.Runtimes;
using ModelHost.TestKit;

namespace ModelHost.Tests.Nodes;

/// <summary>The only engine of a node, which stands still until this is disposed: what is under way there does not end meanwhile, however long a test takes.</summary>
internal sealed class HeldEngine : IDisposable
{
    private const int SigStop = 19, SigCont = 18;
    private readonly int _pid;

    public HeldEngine(TestNode node)
    {
        _pid = TestNode.EnginePid(node.Data);
        Libc.SignalGroup(_pid, SigStop);
    }

    public void Dispose() => Libc.SignalGroup(_pid, SigCont);
}
