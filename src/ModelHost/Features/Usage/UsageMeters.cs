using System.Diagnostics;
using System.Diagnostics.Metrics;
using ModelHost.Observability;

namespace ModelHost.Features.Usage;

/// <summary>What was used since this process began, by deployment and by the way that the requests took.</summary>
internal sealed class UsageMeters
{
    private readonly UsageBook _book;

    public UsageMeters(UsageBook book, IMeterFactory meters)
    {
        _book = book;
        var meter = meters.Create(MetricsFeature.MeterName);
        meter.CreateObservableCounter("modelhost.usage.requests", Requests, "{request}", "Requests that were counted for who sent them, since this process began.");
        meter.CreateObservableCounter("modelhost.usage.tokens", Tokens, "{token}", "Tokens that were counted for who sent the requests, since this process began.");
    }

    private IEnumerable<Measurement<long>> Requests() =>
        _book.Totals.Select(total => new Measurement<long>(total.Count.Requests, new TagList { { "deployment", total.DeploymentUid }, { "via", total.Via } }));

    private IEnumerable<Measurement<long>> Tokens() => _book.Totals.SelectMany(total => (IEnumerable<Measurement<long>>)
    [
        new(total.Count.PromptTokens, new TagList { { "deployment", total.DeploymentUid }, { "kind", "prompt" }, { "via", total.Via } }),
        new(total.Count.CompletionTokens, new TagList { { "deployment", total.DeploymentUid }, { "kind", "completion" }, { "via", total.Via } }),
    ]);
}
