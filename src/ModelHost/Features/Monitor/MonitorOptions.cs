using System.ComponentModel.DataAnnotations;

namespace ModelHost.Features.Monitor;

/// <summary>How models are shut down. Section <c>Monitor</c>.</summary>
public sealed class MonitorOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Monitor";

    /// <summary>How long a shutdown waits for the calls under way. Default 30 s, as LocalAI.</summary>
    [Range(typeof(TimeSpan), "00:00:00", "01:00:00")]
    public TimeSpan ShutdownGrace { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long a shutdown waits for the engine's end once it was told. Default 60 s.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "01:00:00")]
    public TimeSpan ShutdownTimeout { get; set; } = TimeSpan.FromSeconds(60);
}
