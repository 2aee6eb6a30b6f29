using System.ComponentModel.DataAnnotations;

namespace ModelHost.Features.Events;

/// <summary>How the clients of <c>/ws</c> are treated. Section <c>Events</c>.</summary>
public sealed class EventOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Events";

    /// <summary>Clients at a time; one more is answered 503. Default 1000, 1 to 100,000.</summary>
    [Range(1, 100_000)]
    public int MaxClients { get; set; } = 1000;

    /// <summary>Largest message taken from a client; it is read and ignored. A larger one ends the connection. Default 64 KiB.</summary>
    [Range(125, 16 * 1024 * 1024)]
    public int MaxMessageBytes { get; set; } = 64 * 1024;

    /// <summary>Changes kept for a client that is busy; beyond that it is told once that anything may have changed. Default 256.</summary>
    [Range(1, 100_000)]
    public int Backlog { get; set; } = 256;

    /// <summary>Silence after which the server pings. Default 30 s.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "01:00:00")]
    public TimeSpan PingInterval { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long a pong may take before the client is dropped. Default 20 s.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "01:00:00")]
    public TimeSpan PingTimeout { get; set; } = TimeSpan.FromSeconds(20);

    /// <summary>How long a client may take to receive one event, or to answer the closing frame, before it is dropped. Default 10 s.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:10:00")]
    public TimeSpan SendTimeout { get; set; } = TimeSpan.FromSeconds(10);
}
