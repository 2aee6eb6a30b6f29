using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using ModelHost.Hosting;

namespace ModelHost.Cluster;

/// <summary>Tells the control plane that this node is there, as often as it wants to hear it, and renews the certificate. Silence of it ends nothing here.</summary>
internal sealed partial class HeartbeatService(
    Membership membership, string hostname, IServer server, IHostApplicationLifetime lifetime, TimeProvider time, ILogger<HeartbeatService> logger) : BackgroundService
{
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(5);
    private bool _isHeard = true;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (!await lifetime.StartedAsync(time, stoppingToken))
            return;
        var port = BindingAddress.Parse(server.Features.Get<IServerAddressesFeature>()!.Addresses.First()).Port;
        var request = new HeartbeatRequest
        {
            Hostname = hostname,
            Port = port,
            AgentVersion = typeof(HeartbeatService).Assembly.GetName().Version?.ToString(3) ?? "",
        };
        while (!stoppingToken.IsCancellationRequested)
        {
            var pause = Retry;
            try
            {
                if (membership.IsRenewalDue())
                {
                    await membership.RenewAsync(stoppingToken);
                    LogRenewed(membership.Certificate.NotAfter.ToUniversalTime());
                }
                pause = TimeSpan.FromSeconds(Math.Clamp((await membership.BeatAsync(request, stoppingToken)).NextSeconds, 1, 600));
                if (!_isHeard)
                    LogHeard(membership.ControlPlane);
                _isHeard = true;
            }
            catch (Exception e) when (e is HttpRequestException or ClusterException or IOException or OperationCanceledException && !stoppingToken.IsCancellationRequested)
            {
                if (_isHeard || e is ClusterException)
                    LogNotHeard(membership.ControlPlane, e.GetBaseException().Message);
                _isHeard = false;
            }
            await Task.Delay(pause, time, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    [LoggerMessage(1421, LogLevel.Warning, "The control plane {ControlPlane} does not hear this node: {Reason}. Its engines go on; it tries again.")]
    private partial void LogNotHeard(string controlPlane, string reason);

    [LoggerMessage(1422, LogLevel.Information, "The control plane {ControlPlane} hears this node again.")]
    private partial void LogHeard(string controlPlane);

    [LoggerMessage(1423, LogLevel.Information, "The certificate was renewed; it is valid until {NotAfter}.")]
    private partial void LogRenewed(DateTime notAfter);
}
