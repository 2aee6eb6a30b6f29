namespace ModelHost.TestKit;

/// <summary>Waits in tests: for a condition, never for a time.</summary>
public static class Deadline
{
    /// <summary>Polls until the condition holds, and fails with the last value seen after <paramref name="seconds"/>.</summary>
    public static async Task<T> UntilAsync<T>(Func<Task<T>> read, Func<T, bool> holds, double seconds = 30, string? what = null)
    {
        var until = TimeProvider.System.GetTimestamp() + (long)(seconds * TimeProvider.System.TimestampFrequency);
        while (true)
        {
            var value = await read();
            if (holds(value))
                return value;
            if (TimeProvider.System.GetTimestamp() > until)
                throw new TimeoutException($"{what ?? "the condition"} did not hold within {seconds} s; last seen: {value}");
            await Task.Delay(20);
        }
    }

    /// <summary>Polls until the condition holds.</summary>
    public static Task UntilAsync(Func<bool> holds, double seconds = 30, string? what = null) =>
        UntilAsync(() => Task.FromResult(holds()), static v => v, seconds, what);
}
