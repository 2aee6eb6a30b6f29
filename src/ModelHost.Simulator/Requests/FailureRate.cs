namespace ModelHost.Simulator.Requests;

/// <summary>Says yes for a share of the calls, spread evenly: the same run fails at the same requests every time.</summary>
internal sealed class FailureRate(double percent)
{
    private long _calls;

    public bool Next()
    {
        if (percent <= 0)
            return false;
        var call = Interlocked.Increment(ref _calls);
        return Math.Floor(call * percent / 100) > Math.Floor((call - 1) * percent / 100);
    }
}
