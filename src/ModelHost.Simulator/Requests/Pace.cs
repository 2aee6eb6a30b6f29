using ModelHost.Simulator.Options;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Requests;

/// <summary>How long the tokens of one request take: means, deviations around them, and a factor for company. The same seed gives the same times.</summary>
internal sealed class Pace(Knobs knobs, Scheduler scheduler, ulong seed)
{
    /// <summary>Samples stay within this share of the mean, on both sides.</summary>
    private const double Widest = 0.7;

    private TextSource _random = new(TextSource.Hash("pace", seed));

    /// <summary>Time from the start of the prefill to the first token.</summary>
    /// <param name="uncached">Prompt tokens that have to be computed.</param>
    public TimeSpan First(int uncached) => Loaded(Sample(knobs.TimeToFirstToken, knobs.TimeToFirstTokenDeviation) + (knobs.PrefillTimePerToken * uncached));

    /// <summary>Time from one token to the next.</summary>
    public TimeSpan Gap() => Loaded(Sample(knobs.InterTokenLatency, knobs.InterTokenDeviation));

    /// <summary>The factor grows evenly from 1 for a sequence alone to its full value in a full batch.</summary>
    private TimeSpan Loaded(TimeSpan time) => knobs.FactorUnderLoad == 1 || scheduler.Places == 1 ? time
        : time * (1 + ((knobs.FactorUnderLoad - 1) * Math.Min(1, Math.Max(0, scheduler.Running - 1) / (scheduler.Places - 1.0))));

    private TimeSpan Sample(TimeSpan mean, TimeSpan deviation)
    {
        if (deviation == TimeSpan.Zero)
            return mean;
        // twelve even ones less their mean are close to a normal deviate
        var normal = -6.0;
        for (var i = 0; i < 12; i++)
            normal += (_random.Random() & 0xFFFF) / 65_536.0;
        return mean + Clamp(deviation * normal, mean * Widest);
    }

    private static TimeSpan Clamp(TimeSpan value, TimeSpan most) => value > most ? most : value < -most ? -most : value;
}
