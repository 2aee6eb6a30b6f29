using System.ComponentModel.DataAnnotations;

namespace ModelHost.Features.Galleries;

/// <summary>Where models and backends come from, and what reading them may cost. Section <c>Galleries</c>.</summary>
public sealed class GalleryOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Galleries";

    /// <summary>Galleries of models beside those added through the API. Default: the built-in one.</summary>
    public List<GallerySource>? Models { get; set; }

    /// <summary>Galleries of backends. Default: the built-in one.</summary>
    public List<GallerySource>? Backends { get; set; }

    /// <summary>How long a gallery that was read is not asked for again. Default 1 h, 1 s to 30 days.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "30.00:00:00")]
    public TimeSpan CacheTime { get; set; } = TimeSpan.FromHours(1);

    /// <summary>How long a source that failed is left alone. Default 1 min, 1 s to 1 day.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan RetryAfter { get; set; } = TimeSpan.FromMinutes(1);

    /// <summary>How long a source may take from the request to its last byte. Default 30 s, 100 ms to 10 min.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:10:00")]
    public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>
    /// How long a list of what can be installed waits for galleries that are slow; then it goes without them, or with what they held before, and they are read on
    /// behind it. Default 10 s, 100 ms to 10 min.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:10:00")]
    public TimeSpan Patience { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>Bytes of the largest index. Default 32 MiB.</summary>
    [Range(1024, 1024 * 1024 * 1024)]
    public int MaxIndexBytes { get; set; } = 32 * 1024 * 1024;

    /// <summary>Whether a model is refused whose files' scan cannot be asked for, too. Default false: only what is known to be unsafe is refused.</summary>
    public bool EnforceScan { get; set; }

    /// <summary>Whether files may be downloaded whose formats run code when they are read (pickles: .bin, .pt, .pth, .ckpt, .pkl). Default false.</summary>
    public bool AllowPickle { get; set; }

    /// <summary>
    /// What nodes can run, by host name, <c>*</c> for all others, in the words of backend galleries (<c>nvidia-cuda-12</c>, <c>amd</c>, <c>intel</c>, <c>default</c> ...).
    /// Default: what their GPUs and drivers tell.
    /// </summary>
    public Dictionary<string, string> Capabilities { get; set; } = [];

    /// <summary>How often newer versions of installed backends are looked for. Default 6 h, 1 min to 30 days.</summary>
    [Range(typeof(TimeSpan), "00:01:00", "30.00:00:00")]
    public TimeSpan UpgradePeriod { get; set; } = TimeSpan.FromHours(6);

    /// <summary>Jobs that run at the same time. Default 2, 1 to 16.</summary>
    [Range(1, 16)]
    public int ParallelJobs { get; set; } = 2;

    /// <summary>
    /// How long a node that has a model's new files ready may not answer when all are to put them in their place; then the job fails, and says which nodes have them.
    /// Default 15 min, 1 s to 1 day.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan CommitPatience { get; set; } = TimeSpan.FromMinutes(15);

    /// <summary>How long the engine of a model that is to be deleted may take to stop; then the job fails, and model and record stay. Default 10 min, 1 s to 1 day.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan StopPatience { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>Jobs that wait to run. Default 1000: one more is refused.</summary>
    [Range(1, 100_000)]
    public int MaxQueuedJobs { get; set; } = 1000;

    /// <summary>How long the outcome of a job is kept. Default 7 days, 1 min to 10 years.</summary>
    [Range(typeof(TimeSpan), "00:01:00", "3650.00:00:00")]
    public TimeSpan KeepJobs { get; set; } = TimeSpan.FromDays(7);

    /// <summary>Outcomes that are kept at most. Default 1000.</summary>
    [Range(1, 100_000)]
    public int MaxKeptJobs { get; set; } = 1000;

    /// <summary>File with models to install at start: a YAML list of what <c>POST /models/apply</c> takes. Default: none.</summary>
    public string Import { get; set; } = "";

    /// <summary>The same as JSON text. Default: none.</summary>
    public string ImportJson { get; set; } = "";
}

/// <summary>A gallery in the configuration.</summary>
public sealed class GallerySource
{
    /// <summary>Its unique name.</summary>
    public string Name { get; set; } = "";

    /// <summary>Where its index is.</summary>
    public string Url { get; set; } = "";

    /// <summary>Where else, in the order in which they are tried.</summary>
    public List<string> Mirrors { get; set; } = [];
}
