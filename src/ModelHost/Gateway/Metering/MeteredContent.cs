using System.Net;
using System.Runtime.CompilerServices;

namespace ModelHost.Gateway.Metering;

/// <summary>The body of an engine's answer, metered as it is read.</summary>
internal sealed class MeteredContent(HttpContent engine, GatewayCall call, TimeSpan silence) : HttpContent
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
    private sealed class AnswerStream(Stream engine, GatewayCall call) : ReadOnlyStream(engine)
    {
        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            var reading = Engine.ReadAsync(buffer, cancellationToken);
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

/// <summary>A stream over an engine's, which is only read, and only asynchronously.</summary>
internal abstract class ReadOnlyStream(Stream engine) : Stream
{
    protected Stream Engine => engine;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public abstract override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default);

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException("only asynchronous reads");

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
            engine.Dispose();
        base.Dispose(disposing);
    }
}
