using System.Net;
using Microsoft.Extensions.Logging;
using ModelHost.Agent.Runtimes;
using ModelHost.Docker;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>
/// Deletes images that this node has pulled and that nothing on it uses, and never by force. An engine takes its time for tens of gigabytes: the deletion goes on
/// when nobody waits for it any more.
/// </summary>
/// <param name="engines">The container engines of the node.</param>
/// <param name="answers">Whether the engine of a name answered when it was asked last.</param>
/// <param name="use">What on the node is about to use an image; null: nothing.</param>
/// <param name="time">The clock.</param>
/// <param name="logger">Hears what was deleted.</param>
/// <param name="shutdown">The node ends.</param>
internal sealed partial class ImageRemoval(
    IReadOnlyList<ContainerEngine> engines, Func<string, bool> answers, Func<string, string?> use, TimeProvider time, ILogger logger, CancellationToken shutdown) : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);
    private static readonly Dictionary<string, string?> AnyLabels = [];

    private readonly Dictionary<string, Task> _underWay = [];
    private readonly Lock _lock = new();

    /// <summary>Deletes one, or says that it is being deleted. One that is not there is no error.</summary>
    /// <exception cref="InvalidOperationException">It stays, and why.</exception>
    /// <exception cref="RuntimeException">An engine does not answer; nothing was deleted.</exception>
    public async Task<DeleteArtifactReply> RemoveAsync(string image, CancellationToken cancellationToken)
    {
        Task removal;
        lock (_lock)
        {
            if (!_underWay.TryGetValue(image, out removal!))
                _underWay[image] = removal = Task.Run(() => DoAsync(image), CancellationToken.None);
        }
        try
        {
            await removal.WaitAsync(Patience, time, cancellationToken);
            return new DeleteArtifactReply();
        }
        catch (TimeoutException)
        {
            return new DeleteArtifactReply { UnderWay = true };
        }
    }

    /// <summary>Waits for what is under way, which the node's end breaks off.</summary>
    public async ValueTask DisposeAsync()
    {
        Task[] removals;
        lock (_lock)
            removals = [.. _underWay.Values];
        await Task.WhenAll(removals).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    private async Task DoAsync(string image)
    {
        try
        {
            var has = new List<ContainerEngine>();
            // one that has pulled it and does not answer now may have it still
            var asked = engines.Where(engine => answers(engine.Name) || engine.Pulled.Knows(image)).ToArray();
            foreach (var engine in asked.Length > 0 ? asked : engines.Take(1))
            {
                if (await DockerRuntime.Ask(() => engine.Images.FindAsync(image, shutdown)) is not { } found)
                {
                    engine.Pulled.Forget(image);
                    continue;
                }
                if (await WhyKeptAsync(engine, image, found.Id) is { } why)
                    throw new InvalidOperationException(why);
                has.Add(engine);
            }
            foreach (var engine in has)
                await RemoveAsync(engine, image);
        }
        finally
        {
            lock (_lock)
                _underWay.Remove(image);
        }
    }

    private async Task<string?> WhyKeptAsync(ContainerEngine engine, string image, string id)
    {
        if (engine.Pulled.Find(image, id) is null)
            return "it was not pulled by ModelHost";
        if (use(image) is { } user)
            return user;
        // the engine itself takes a name away under a container if the image has another one
        var containers = await DockerRuntime.Ask(() => engine.Client.ListContainersAsync(AnyLabels, shutdown));
        return containers.FirstOrDefault(container => Bare(container.ImageId) == Bare(id) || container.Image == image) is { } container
            ? $"container {(container.Names.Count > 0 ? container.Names[0] : container.Id)} uses it{(container.State == "running" ? "" : $" ({container.State})")}" : null;
    }

    private async Task RemoveAsync(ContainerEngine engine, string image)
    {
        try
        {
            await engine.Client.RemoveImageAsync(image, force: false, shutdown);
        }
        catch (DockerException e) when (e.StatusCode == HttpStatusCode.NotFound)
        {
            // somebody else was faster
        }
        catch (DockerException e) when (e.StatusCode == HttpStatusCode.Conflict)
        {
            throw new InvalidOperationException($"{engine.Name} keeps it: {e.EngineMessage}", e);
        }
        catch (DockerException e)
        {
            throw new RuntimeException(e.Message, e, e.StatusCode is null);
        }
        engine.Pulled.Forget(image);
        LogRemoved(image, engine.Name);
    }

    private static string Bare(string id) => id[(id.IndexOf(':', StringComparison.Ordinal) + 1)..];

    [LoggerMessage(2258, LogLevel.Information, "Image {Image} was deleted from {Engine}.")]
    private partial void LogRemoved(string image, string engine);
}
