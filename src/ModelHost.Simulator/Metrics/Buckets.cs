namespace ModelHost.Simulator.Metrics;

/// <summary>The bucket bounds of vLLM's histograms.</summary>
internal static class Buckets
{
    public static double[] TimeToFirstToken { get; } =
        [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560];

    public static double[] TokenGap { get; } =
        [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80];

    public static double[] Latency { get; } =
        [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680];

    public static double[] Iteration { get; } = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

    public static double[] BlockResidency { get; } =
        [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800];

    /// <summary>1, 2, 3, 5, 8 and their tenfolds, up to 3000.</summary>
    public static double[] ModelMilliseconds { get; } =
        [1, 2, 3, 5, 8, 10, 20, 30, 50, 80, 100, 200, 300, 500, 800, 1000, 2000, 3000];

    public static double[] HttpFine { get; } =
        [0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60];

    public static double[] HttpCoarse { get; } = [0.1, 0.5, 1];

    public static double[] N { get; } = [1, 2, 5, 10, 20];

    /// <summary>1, 2, 5, 10, 20, 50 … as long as they do not exceed the context length.</summary>
    public static double[] OneTwoFive(long maxModelLength)
    {
        var bounds = new List<double>();
        for (Int128 power = 1; ; power *= 10)
            foreach (var mantissa in (ReadOnlySpan<int>)[1, 2, 5])
                if (mantissa * power <= maxModelLength)
                    bounds.Add((double)(mantissa * power));
                else
                    return [.. bounds];
    }
}
