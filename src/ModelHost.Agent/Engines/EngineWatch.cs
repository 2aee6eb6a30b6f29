using ModelHost.Agent.Runtimes;

namespace ModelHost.Agent.Engines;

/// <summary>
/// Keeps on watching over one engine. What breaks the watching says nothing about the engine: it is not shown as failed for it, let alone ended, but watched
/// again after a pause.
/// </summary>
/// <param name="time">Measures the pauses.</param>
/// <param name="broken">Hears of what no runtime and no engine should do; that one does not answer is nothing to tell.</param>
internal sealed class EngineWatch(TimeProvider time, Action<Exception> broken)
{
    private const int MaxDoublings = 5;
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);
    // what worked for so long has not failed in a row
    private static readonly TimeSpan Proven = TimeSpan.FromMinutes(1);

    /// <summary>Does a part of it until that comes to its end by itself.</summary>
    /// <param name="part">Reads from the engine or its runtime; goes on where it was when it is called again.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="OperationCanceledException">It was cancelled, whatever the part said of that.</exception>
    public async Task<T> KeepOnAsync<T>(Func<CancellationToken, Task<T>> part, CancellationToken cancellationToken)
    {
        for (var failures = 0; ; failures++)
        {
            var began = time.GetTimestamp();
            var pause = Pause;
            try
            {
                return await part(cancellationToken);
            }
            catch (Exception e) when (cancellationToken.IsCancellationRequested)
            {
                // a connection that broke at that moment, for example
                throw new OperationCanceledException(e.Message, e, cancellationToken);
            }
            catch (Exception e) when (e is RuntimeException or EngineSilentException)
            {
                failures = -1;
            }
#pragma warning disable CA1031 // the one catch-all of the loop: it is told, and tried again
            catch (Exception e)
#pragma warning restore CA1031
            {
                failures = time.GetElapsedTime(began) < Proven ? failures : 0;
                pause *= 1 << Math.Min(failures, MaxDoublings);
                broken(e);
            }
            await Task.Delay(pause, time, cancellationToken);
        }
    }
}
