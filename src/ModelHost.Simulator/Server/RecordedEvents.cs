using Microsoft.AspNetCore.Http;

namespace ModelHost.Simulator.Server;

/// <summary>The events of a stream that nobody need read while it runs; any number of clients may read them, from any event on.</summary>
internal sealed class RecordedEvents(CancellationToken gone) : IAnswerSink
{
    private readonly Lock _gate = new();
    private readonly List<byte[]> _events = [];
    private TaskCompletionSource _more = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _ended;

    public CancellationToken Gone => gone;

    public long Bytes { get; private set; }

    public ValueTask WriteAsync(ReadOnlyMemory<byte> events)
    {
        lock (_gate)
        {
            while (events.Span.IndexOf("\n\n"u8) is >= 0 and var end)
            {
                _events.Add(events[..(end + 2)].ToArray());
                Bytes += end + 2;
                events = events[(end + 2)..];
            }
            Signal();
        }
        return ValueTask.CompletedTask;
    }

    public void Cut()
    {
    }

    /// <summary>Nothing more will come.</summary>
    public void End()
    {
        lock (_gate)
        {
            _ended = true;
            Signal();
        }
    }

    /// <summary>Sends what there is, and what comes, until the end.</summary>
    public async Task SendAsync(HttpContext context, int from)
    {
        await Answers.BeginStreamAsync(context);
        while (true)
        {
            byte[][] ready;
            Task more;
            lock (_gate)
            {
                ready = [.. _events.Skip(from)];
                more = _ended ? Task.CompletedTask : _more.Task;
            }
            foreach (var entry in ready)
                await context.Response.BodyWriter.WriteAsync(entry, context.RequestAborted);
            from += ready.Length;
            if (ready.Length == 0 && more.IsCompleted)
                return;
            await more.WaitAsync(context.RequestAborted);
        }
    }

    private void Signal()
    {
        _more.TrySetResult();
        _more = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
