using System.ComponentModel.DataAnnotations;

namespace ModelHost.Gateway;

/// <summary>How <c>/v1</c> treats requests. Section <c>Gateway</c>.</summary>
public sealed class GatewayOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Gateway";

    /// <summary>Largest request body in bytes. Default 256 MiB.</summary>
    [Range(1024, long.MaxValue)]
    public long MaxRequestBytes { get; set; } = 256L * 1024 * 1024;

    /// <summary>Bytes of a body within which <c>model</c> must come. Default 64 MiB.</summary>
    [Range(1024, 256 * 1024 * 1024)]
    public int MaxModelOffset { get; set; } = 64 * 1024 * 1024;

    /// <summary>
    /// Longest silence of an engine in a stream, before it or between two pieces of it. Default 10 min. Of a call that is not streamed the whole counts:
    /// setting <c>gateway_timeout_seconds</c>.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan ActivityTimeout { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>What a client is told to wait while a model loads. Default 2 s.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:10:00")]
    public TimeSpan RetryAfter { get; set; } = TimeSpan.FromSeconds(2);
}
