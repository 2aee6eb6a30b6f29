namespace ModelHost.Docker;

/// <summary>Which events to watch. What is left empty filters nothing; within one list any will do, of the labels all have to be there.</summary>
public sealed record EventQuery
{
    /// <summary>Kinds of thing: <c>container</c>, <c>image</c>, <c>network</c>, <c>volume</c>, <c>daemon</c> and so on.</summary>
    public IReadOnlyList<string> Types { get; init; } = [];

    /// <summary>Label and value; a null value asks only that the label is there. Networks and volumes have none in their events.</summary>
    public IReadOnlyDictionary<string, string?> Labels { get; init; } = new Dictionary<string, string?>();

    /// <summary>
    /// Names of events: <c>create</c>, <c>start</c>, <c>die</c>, <c>oom</c>, <c>destroy</c>, <c>health_status</c> and so on. Podman has names of its
    /// own (<c>died</c>, <c>remove</c>).
    /// </summary>
    public IReadOnlyList<string> Actions { get; init; } = [];

    /// <summary>
    /// As <see cref="EngineEvent.Time"/>, or whole Unix seconds: begins with what happened from then on, that very moment included, as far as the
    /// engine remembers; Docker remembers its last 256 events. Null begins with what happens next.
    /// </summary>
    public string? Since { get; init; }

    /// <summary>In the form of <see cref="Since"/>: the stream ends then. Null goes on for as long as the engine does.</summary>
    public string? Until { get; init; }
}

/// <summary>Something that happened on the engine.</summary>
public sealed record EngineEvent
{
    /// <summary>Kind of thing that it happened to, <c>container</c> for example.</summary>
    public required string Type { get; init; }

    /// <summary>What happened, <c>die</c> for example; some carry more: <c>health_status: healthy</c>, <c>exec_start: sh -c true</c>.</summary>
    public required string Action { get; init; }

    /// <summary>The thing's id: a container's full id, an image's id or name. Empty when the engine does not say.</summary>
    public string Id { get; init; } = "";

    /// <summary>Name, image and labels of a container, <c>exitCode</c> when it died, and the like.</summary>
    public IReadOnlyDictionary<string, string> Attributes { get; init; } = new Dictionary<string, string>();

    /// <summary>Unix seconds with the engine's nine digits of nanoseconds after a dot, <c>1700000000.000000001</c>.</summary>
    public required string Time { get; init; }
}
