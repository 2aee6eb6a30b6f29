using Microsoft.Extensions.Hosting;

namespace ModelHost.Agent.Proxy;

/// <summary>
/// Opens the public ports of the engines that outlived the process before anything else is begun, and lets requests under way there finish while all
/// else ends.
/// </summary>
public sealed class NodeProxyService(NodeProxy proxy, LocalNode? node) : IHostedLifecycleService, IDisposable
{
    private readonly CancellationTokenSource _cut = new();
    private Task _stopping = Task.CompletedTask;

    /// <inheritdoc/>
    public Task StartingAsync(CancellationToken cancellationToken) => node?.OpenPortsAsync() ?? Task.CompletedTask;

    /// <inheritdoc/>
    public Task StoppingAsync(CancellationToken cancellationToken)
    {
        _stopping = proxy.StopAsync(_cut.Token); // others drain meanwhile
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public async Task StoppedAsync(CancellationToken cancellationToken)
    {
        await using (cancellationToken.UnsafeRegister(static cut => ((CancellationTokenSource)cut!).Cancel(), _cut))
            await _stopping;
    }

    /// <inheritdoc/>
    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public void Dispose() => _cut.Dispose();
}
