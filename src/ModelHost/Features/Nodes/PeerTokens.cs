using ModelHost.Cluster;

namespace ModelHost.Features.Nodes;

/// <summary>
/// The join token that LocalAI's clients read: one that can be used, made when the last one that was told cannot be any more. While no nodes are taken there is
/// none: reading opens no listener.
/// </summary>
internal sealed class PeerTokens(JoinTokenService tokens, ClusterListener listener, TimeProvider time) : IDisposable
{
    // so that there is time left to use it
    private static readonly TimeSpan Left = TimeSpan.FromMinutes(10);

    private readonly SemaphoreSlim _one = new(1);
    private JoinTokenCreated? _told;

    /// <summary>The token; empty: there is none.</summary>
    public async Task<string> ReadAsync(CancellationToken cancellationToken)
    {
        if (listener.Port == 0)
            return "";
        await _one.WaitAsync(cancellationToken);
        try
        {
            if (_told is not { } told || told.ExpiresAt < time.GetUtcNow() + Left
                || !(await tokens.ListAsync(cancellationToken)).Any(token => token.Id == told.Id && token.Status == "active"))
                _told = (await tokens.CreateAsync(new JoinTokenCreate(), cancellationToken)).Match<JoinTokenCreated?>(made => made, _ => null);
            return _told?.Token ?? "";
        }
        finally
        {
            _one.Release();
        }
    }

    public void Dispose() => _one.Dispose();
}
