using System.Diagnostics.Metrics;
using Microsoft.Extensions.Options;
using ModelHost.Agent.Http;
using ModelHost.Core.Routing;
using ModelHost.Features.Deployments;
using ModelHost.Observability;

namespace ModelHost.Gateway;

/// <summary>Why a request is not held any longer.</summary>
/// <param name="Error">What it is answered, with 503.</param>
/// <param name="RetryAfter">When to ask again; null: it is not said.</param>
internal sealed record HeldRefusal(OpenAiError Error, TimeSpan? RetryAfter);

/// <summary>
/// Holds requests whose model is not up yet, and starts models that rest until they are asked for. Nothing of an answer is written meanwhile, so that each
/// can still be refused. As many as <see cref="GatewayOptions.MaxHeldPerModel"/> says wait, for <see cref="GatewayOptions.HoldTimeout"/> at most.
/// </summary>
internal sealed class HeldRequests
{
    private readonly RouteSource _routes;
    private readonly OnDemandStarts _starts;
    private readonly GatewayDrain _drain;
    private readonly GatewayOptions _options;
    private readonly TimeProvider _time;
    private readonly Dictionary<string, int> _waiting = [];
    private readonly Lock _lock = new();
    private int _total;

    public HeldRequests(RouteSource routes, OnDemandStarts starts, GatewayDrain drain, IOptions<GatewayOptions> options, TimeProvider time, IMeterFactory meters)
    {
        (_routes, _starts, _drain, _options, _time) = (routes, starts, drain, options.Value, time);
        meters.Create(MetricsFeature.MeterName).CreateObservableGauge("modelhost.gateway.requests.held", Measure, "{request}",
            "Requests that wait for a model that loads or is being started.");
    }

    /// <summary>Waits while a model is on its way, and starts it where that takes a request.</summary>
    /// <param name="model">The name that was asked for; one of the table.</param>
    /// <param name="scope">What may be asked for, and so started.</param>
    /// <param name="aborted">The client leaves, and with it its place.</param>
    /// <returns>Why not; null: there is another answer now than that it loads.</returns>
    public async Task<HeldRefusal?> WaitAsync(string model, RouteScope? scope, CancellationToken aborted)
    {
        if (!TryEnter(model))
            return new HeldRefusal(OpenAiErrors.Loading(model), _options.RetryAfter);
        try
        {
            using var limit = new CancellationTokenSource(_options.HoldTimeout, _time);
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, _drain.Stopping, aborted);
            return await HoldAsync(model, scope, waiting.Token);
        }
        catch (OperationCanceledException) when (!aborted.IsCancellationRequested)
        {
            return _drain.IsDraining ? new HeldRefusal(OpenAiErrors.ShuttingDown(), null) : new HeldRefusal(OpenAiErrors.Loading(model), _options.RetryAfter);
        }
        finally
        {
            Leave(model);
        }
    }

    private async Task<HeldRefusal?> HoldAsync(string model, RouteScope? scope, CancellationToken waiting)
    {
        ModelRoute? started = null;
        while (true)
        {
            var changed = _routes.Changed;
            var answer = _routes.Current.Find(model, scope);
            if (answer is not { Route: null, Miss: RouteMiss.Loading })
            {
                if (answer.Route is { StartsOnDemand: true } up)
                    _starts.Forget(up.DeploymentUid);
                return null;
            }
            if (started is null && answer.Startable.Count > 0)
            {
                // each request starts one once: what ends again while it is waited for has been ended, or cannot be started
                (started, var refusal) = await _starts.StartOneAsync(answer.Startable).WaitAsync(waiting);
                if (started is null)
                    return Failed(model, refusal);
                continue;
            }
            if (answer.Startable.FirstOrDefault(route => route.DeploymentUid == started?.DeploymentUid) is { } again && again.StatusSince != started!.StatusSince)
                return Failed(model, _starts.Ended(again));
            await changed.WaitAsync(waiting);
        }
    }

    private static HeldRefusal Failed(string model, StartRefusal refusal) => new(OpenAiErrors.StartFailed(model, refusal.Code), refusal.RetryAfter);

    private bool TryEnter(string model)
    {
        lock (_lock)
        {
            var before = _waiting.GetValueOrDefault(model);
            if (before >= _options.MaxHeldPerModel || _total >= _options.MaxHeld)
                return false;
            _waiting[model] = before + 1;
            _total++;
            return true;
        }
    }

    private void Leave(string model)
    {
        lock (_lock)
        {
            _total--;
            if (--_waiting[model] == 0)
                _waiting.Remove(model);
        }
    }

    private IEnumerable<Measurement<int>> Measure()
    {
        lock (_lock)
            return [.. _waiting.Select(one => new Measurement<int>(one.Value, new KeyValuePair<string, object?>("model", one.Key)))];
    }
}
