using System.ComponentModel.DataAnnotations;
using ModelHost.Core.Routing;

namespace ModelHost.Gateway;

/// <summary>How <c>/v1</c> treats requests. Section <c>Gateway</c>.</summary>
public sealed class GatewayOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Gateway";

    /// <summary>Largest request body in bytes. Default 256 MiB.</summary>
    [Range(1024, long.MaxValue)]
    public long MaxRequestBytes { get; set; } = GatewayRoutes.DefaultMaxRequestBytes;

    /// <summary>Bytes of a body within which <c>model</c> must come. Default 64 MiB.</summary>
    [Range(1024, 256 * 1024 * 1024)]
    public int MaxModelOffset { get; set; } = 64 * 1024 * 1024;

    /// <summary>
    /// Largest body in bytes of a request that is translated for a gRPC backend, which is held in memory; files of forms do not count. Default 32 MiB.
    /// </summary>
    [Range(1024, 1024 * 1024 * 1024)]
    public int MaxTranslatedBytes { get; set; } = 32 * 1024 * 1024;

    /// <summary>Longest wait for a connection to an engine. Default 5 s.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:10:00")]
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>
    /// Longest wait for the first byte of a stream, from the moment the request is passed on; a model that has a long queue takes long. Default
    /// 10 min. Of a call that is not streamed the whole counts: setting <c>gateway_timeout_seconds</c>.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan FirstByteTimeout { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>Longest silence of an engine between two pieces of a stream. Default 10 min.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "1.00:00:00")]
    public TimeSpan ActivityTimeout { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>How long a shutdown waits for requests under way. Default 30 s.</summary>
    [Range(typeof(TimeSpan), "00:00:00", "01:00:00")]
    public TimeSpan DrainTimeout { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>
    /// How long a request waits for a model that loads, or that it started; then it is 503. Default 45 s, so that proxies which give silent answers up
    /// after 60 s do not come first. 0: not at all.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:00", "01:00:00")]
    public TimeSpan HoldTimeout { get; set; } = TimeSpan.FromSeconds(45);

    /// <summary>Most requests that wait for one model; further ones are 503 at once. Default 64; each may hold 4 MiB of its body.</summary>
    [Range(1, 10_000)]
    public int MaxHeldPerModel { get; set; } = 64;

    /// <summary>Most requests that wait for all models together. Default 256.</summary>
    [Range(1, 100_000)]
    public int MaxHeld { get; set; } = 256;

    /// <summary>What a client is told to wait while a model loads. Default 2 s.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:10:00")]
    public TimeSpan RetryAfter { get; set; } = TimeSpan.FromSeconds(2);
}
