using System.Diagnostics;
using System.Diagnostics.Metrics;
using ModelHost.Features.Nodes;
using ModelHost.Observability;
using ModelHost.Protocol;

namespace ModelHost.Features.Usage;

/// <summary>
/// Compares, once a minute, what was counted of requests with what the engines count themselves, and shows the difference as
/// <c>modelhost.usage.drift</c>: what an engine did for others than clients, or for requests whose count never came.
/// </summary>
/// <remarks>Both are compared from the moment a run was first seen on. Requests that are under way are counted by their engine already.</remarks>
internal sealed partial class UsageDrift : BackgroundService
{
    private static readonly TimeSpan Period = TimeSpan.FromMinutes(1);

    private readonly UsageBook _book;
    private readonly NodeRegistry _nodes;
    private readonly TimeProvider _time;
    private readonly ILogger<UsageDrift> _logger;
    private readonly Dictionary<string, Baseline> _baselines = [];
    private volatile IReadOnlyList<Reading> _readings = [];

    public UsageDrift(UsageBook book, NodeRegistry nodes, TimeProvider time, IMeterFactory meters, ILogger<UsageDrift> logger)
    {
        (_book, _nodes, _time, _logger) = (book, nodes, time, logger);
        meters.Create(MetricsFeature.MeterName).CreateObservableGauge("modelhost.usage.drift", Measure, "{token}",
            "Tokens that an engine counted and that were not counted for who sent the requests, since its run was first seen.");
    }

    /// <summary>The differences as of the last comparison.</summary>
    public IReadOnlyList<Reading> Readings => _readings;

    /// <summary>Compares now.</summary>
    public void Compare()
    {
        var readings = new List<Reading>();
        var seen = new HashSet<string>();
        foreach (var engine in _nodes.All.SelectMany(node => node.LastReport?.Engines ?? (IEnumerable<Engine>)[]))
        {
            if (engine.Metrics is not { } metrics)
                continue;
            seen.Add(engine.RunId);
            var (prompt, completion) = _book.Total(engine.DeploymentUid);
            if (!_baselines.TryGetValue(engine.RunId, out var begin) || metrics.PromptTokens < begin.EnginePrompt || metrics.GenerationTokens < begin.EngineCompletion)
                _baselines[engine.RunId] = begin = new Baseline(metrics.PromptTokens, metrics.GenerationTokens, prompt, completion);
            readings.Add(new Reading(engine.DeploymentUid,
                metrics.PromptTokens - begin.EnginePrompt - (prompt - begin.Prompt),
                metrics.GenerationTokens - begin.EngineCompletion - (completion - begin.Completion)));
        }
        foreach (var gone in _baselines.Keys.Where(run => !seen.Contains(run)).ToArray())
            _baselines.Remove(gone);
        _readings = readings;
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, _time);
        try
        {
            do
                TryCompare();
            while (await timer.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // also where the host did not start: nothing has failed here
        }
    }

    private void TryCompare()
    {
        try
        {
            Compare();
        }
#pragma warning disable CA1031 // a metric that is late ends nothing
        catch (Exception e)
#pragma warning restore CA1031
        {
            LogFailed(e);
        }
    }

    private IEnumerable<Measurement<double>> Measure() => _readings.SelectMany(reading => (IEnumerable<Measurement<double>>)
    [
        new(reading.PromptTokens, new TagList { { "deployment", reading.DeploymentUid }, { "kind", "prompt" } }),
        new(reading.CompletionTokens, new TagList { { "deployment", reading.DeploymentUid }, { "kind", "completion" } }),
    ]);

    [LoggerMessage(1802, LogLevel.Warning, "What the engines counted could not be compared.")]
    private partial void LogFailed(Exception exception);

    /// <summary>What an engine counted more.</summary>
    internal readonly record struct Reading(string DeploymentUid, double PromptTokens, double CompletionTokens);

    private sealed record Baseline(double EnginePrompt, double EngineCompletion, long Prompt, long Completion);
}
