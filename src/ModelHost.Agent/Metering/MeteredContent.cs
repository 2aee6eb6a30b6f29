using System.Net;
using System.Runtime.CompilerServices;

namespace ModelHost.Agent.Metering;

/// <summary>The body of an engine's answer, metered as it is read.</summary>
internal sealed class MeteredContent(HttpContent engine, MeteredCall call, TimeSpan silence) : HttpContent
{
    protected override async Task<Stream> CreateContentReadStreamAsync()
    {
        var stream = await engine.ReadAsStreamAsync();
        return call.IsStream ? new EventStream(stream, call, silence) : new AnswerStream(stream, call);
    }

    protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) =>
        throw new NotSupportedException("it is only read");

    protected override bool TryComputeLength(out long length)
    {
        length = 0;
        return false;
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
            engine.Dispose();
        base.Dispose(disposing);
    }

    /// <summary>An answer that is told whole: its bytes pass as they are.</summary>
    private sealed class AnswerStream(Stream engine, MeteredCall call) : StreamOver(engine)
    {
        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            var reading = Inner.ReadAsync(buffer, cancellationToken);
            return reading.IsCompletedSuccessfully ? new(Feed(buffer.Span[..reading.Result])) : AwaitedAsync(reading, buffer);
        }

        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
        private async ValueTask<int> AwaitedAsync(ValueTask<int> reading, Memory<byte> buffer)
        {
            var read = await reading;
            return Feed(buffer.Span[..read]);
        }

        private int Feed(ReadOnlySpan<byte> bytes)
        {
            call.Usage.Feed(bytes);
            return bytes.Length;
        }
    }
}
