using System.Globalization;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Loading;

/// <summary>A log line that releases word differently; the first wording whose releases include the one at hand is taken.</summary>
internal sealed class Wording(params (Lifespan Lifespan, string Format)[] all)
{
    /// <summary>Releases at which a wording changed are not written down anywhere; this one stands for "newer" where no date is known.</summary>
    private const string Newer = "0.12";

    public static readonly Wording Banner = new(
        (Lifespan.Until(Traits.EarlyYear), "vLLM API server version {0}"),
        (Lifespan.Always, "vLLM server version {0}, serving model {1}"));

    /// <summary>What releases with a logo show in place of the banner.</summary>
    public static readonly Wording[] Logo =
    [
        new((Lifespan.Always, "  \\  / |   |   |\\/|   version {0}")),
        new((Lifespan.Always, "   \\/  |__ |__ |  |   model   {1}")),
    ];

    public static readonly Wording ModelLoaded = new(
        (Lifespan.Until(Newer), "Model loading took {0} GiB and {1} seconds"),
        (Lifespan.Always, "Model loading took {0} GiB memory and {1} seconds"));

    public static readonly Wording Compiled = new(
        (Lifespan.Until(Newer), "Compiling a graph for general shape takes {0} s"),
        (Lifespan.Always, "Compiling a graph for compile range (1, 8192) takes {0} s"));

    public static readonly Wording CompiledBefore = new(
        (Lifespan.Until(Newer), "Directly load the compiled graph(s) for general shape from the cache, took {0} s"),
        (Lifespan.Always, "Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took {0} s"));

    public static readonly Wording CompileTotal = new(
        (Lifespan.Until(Newer), "torch.compile takes {0} s in total"),
        (Lifespan.Always, "torch.compile took {0} s in total"));

    public static readonly Wording Profiled = new((Lifespan.Since(Newer), "Initial profiling/warmup run took {0} s"));

    public static readonly Wording EngineReady = new(
        (Lifespan.Until(Traits.EarlyYear), "init engine (profile, create kv cache, warmup model) took {0} seconds"),
        (Lifespan.Always, "init engine (profile, create kv cache, warmup model) took {0} s (compilation: {1} s)"));

    public static readonly Wording Tasks = new(
        (Lifespan.Until(Newer), "Supported_tasks: ['{0}']"),
        (Lifespan.Always, "Supported tasks: ['{0}']"));

    public static readonly Wording ServerStarts = new(
        (Lifespan.Until(Newer), "Starting vLLM API server on http://{0}:{1}"),
        (Lifespan.Always, "Starting vLLM server on http://{0}:{1}"));

    public static readonly Wording EngineProcess = new(
        (Lifespan.Until("0.11"), "EngineCore_0"),
        (Lifespan.Until("0.18"), "EngineCore_DP0"),
        (Lifespan.Always, "EngineCore"));

    public static readonly Wording StopAsked = new((Lifespan.Since("0.18"), "[shutdown] API server: shutdown triggered"));

    /// <summary>The line in the words of a release; null when it has no such line.</summary>
    public string? Of(Release release, params object?[] values) =>
        Array.Find(all, wording => release.Has(wording.Lifespan)).Format is { } format ? string.Format(CultureInfo.InvariantCulture, format, values) : null;
}
