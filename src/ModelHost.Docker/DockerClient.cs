using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text.Json;
using ModelHost.Docker.Http;
using ModelHost.Docker.Streams;
using ModelHost.Docker.Wire;

namespace ModelHost.Docker;

/// <summary>
/// A client of one Docker Engine (20.10 or later) or Podman. Calls may run side by side. Connecting is given up after 5 seconds; for the rest
/// of a call only the caller's token sets an end, and cancelling it closes the connection. The API version is agreed on with the engine before
/// the first call, and anew after the connection failed.
/// </summary>
/// <remarks>
/// Every call throws <see cref="DockerException"/> when the engine refuses, is not reached, breaks off, is older than API 1.41 or answers what the
/// API does not promise. Ids may be full, abbreviated or names.
/// </remarks>
public sealed partial class DockerClient : IDisposable
{
    private readonly EngineConnection _engine;

    /// <summary>Prepares a client; nothing is sent yet.</summary>
    /// <param name="endpoint"><c>unix:///path/docker.sock</c>, or <c>tcp://host:port</c> (2375 by default) without TLS.</param>
    /// <exception cref="ArgumentException">Another kind of endpoint.</exception>
    public DockerClient(Uri endpoint)
    {
        ArgumentNullException.ThrowIfNull(endpoint);
        _engine = new EngineConnection(endpoint);
    }

    /// <summary>Asks who is there, and agrees on the API version anew.</summary>
    public Task<DockerPing> PingAsync(CancellationToken cancellationToken) => _engine.PingAsync(cancellationToken);

    /// <summary>Creates a container without starting it. 404: no such image; 409: the name is taken.</summary>
    /// <param name="spec">What to create.</param>
    /// <param name="name">Its name; null lets the engine make one up.</param>
    /// <param name="cancellationToken">Ends the call; the container may have been created all the same.</param>
    public async Task<ContainerCreated> CreateContainerAsync(ContainerSpec spec, string? name, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(spec);
        EngineCall call;
        var isPodman = (await _engine.AgreedAsync(cancellationToken)).IsPodman;
        if (isPodman)
        {
            call = EngineCall.PostLibpod("/containers/create").WithJson(spec.ToLibpod(name), DockerJson.Default.LibpodCreateRequest);
        }
        else
        {
            call = EngineCall.Post("/containers/create").WithJson(spec.ToWire(), DockerJson.Default.CreateContainerRequest);
            if (name is not null)
                call.With("name", name);
        }
        try
        {
            using var answer = await _engine.SendAsync(call, cancellationToken);
            var created = await answer.ReadJsonAsync(DockerJson.Default.CreateContainerAnswer, cancellationToken);
            return new(created.Id, created.Warnings ?? []);
        }
        catch (DockerException e) when (isPodman && PodmanRefusal(e) is { } status)
        {
            throw new DockerException(e.Call, status, e.EngineMessage, e);
        }
    }

    /// <summary>What Podman 4 refuses with 500, where Docker has a status for it.</summary>
    private static HttpStatusCode? PodmanRefusal(DockerException e) => e.StatusCode != HttpStatusCode.InternalServerError ? null
        : e.EngineMessage.Contains("already in use", StringComparison.Ordinal) ? HttpStatusCode.Conflict
        : e.EngineMessage.Contains("image not known", StringComparison.Ordinal) ? HttpStatusCode.NotFound
        : null;

    /// <summary>
    /// Starts a container; one that runs already is fine. 404: absent; 400 and 500: it could not be started, and the message says
    /// why.
    /// </summary>
    public Task StartContainerAsync(string id, CancellationToken cancellationToken) =>
        DoAsync(EngineCall.Post(EnginePaths.Container(HttpMethod.Post, id, "/start")), cancellationToken);

    /// <summary>Reads what the engine knows of a container. 404: absent.</summary>
    public async Task<ContainerDetails> InspectContainerAsync(string id, CancellationToken cancellationToken)
    {
        using var answer = await _engine.SendAsync(EngineCall.Get(EnginePaths.Container(HttpMethod.Get, id, "/json")), cancellationToken);
        return (await answer.ReadJsonAsync(DockerJson.Default.ContainerAnswer, cancellationToken)).ToDetails();
    }

    /// <summary>Lists containers in every state that carry all the labels; with none, all containers.</summary>
    /// <param name="labels">Label and value; a null value asks only that the label is there.</param>
    /// <param name="cancellationToken">Ends the call.</param>
    public async Task<IReadOnlyList<ContainerSummary>> ListContainersAsync(
        IReadOnlyDictionary<string, string?> labels, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(labels);
        var call = EngineCall.Get("/containers/json").With("all", "1");
        if (labels.Count > 0)
            call.With("filters", Filters(("label", LabelTexts(labels))));
        using var answer = await _engine.SendAsync(call, cancellationToken);
        return [.. (await answer.ReadJsonAsync(DockerJson.Default.IReadOnlyListContainerListAnswer, cancellationToken)).Select(c => c.ToSummary())];
    }

    /// <summary>
    /// Reads a log line by line, no faster than the caller takes the lines. Lines of more than 16 KiB come in pieces, each of which carries the time
    /// of its line. What came before the engine breaks off is handed out before the exception. 404: absent.
    /// </summary>
    /// <remarks>
    /// Docker 20.10 mostly leaves the very last line out of a followed log when it has no line feed (measured: 10 of 15 containers); it is there
    /// when the log is read again after the end, from the time of the last line seen.
    /// </remarks>
    public async IAsyncEnumerable<LogLine> ReadLogsAsync(
        string id, LogQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(query);
        ArgumentOutOfRangeException.ThrowIfNegative(query.Tail ?? 0, nameof(query));
        using var answer = await _engine.SendAsync(LogCall(id, query), cancellationToken);
        var demultiplexer = new LogDemultiplexer(await IsFramedAsync(id, answer, cancellationToken), query.Timestamps);
        var buffer = new byte[16 << 10];
        var lines = new List<LogLine>();
        DockerException? failure = null;
        int read;
        do
        {
            try
            {
                read = await answer.ReadAsync(buffer, cancellationToken);
            }
            catch (DockerException e)
            {
                (read, failure) = (0, e);
            }
            demultiplexer.Feed(buffer.AsSpan(0, read), lines);
            if (read == 0)
                demultiplexer.Complete(lines);
            foreach (var line in lines)
                yield return line;
            lines.Clear();
            if (failure is null && demultiplexer.Failure is { } why)
                failure = answer.Unusable(why);
            if (failure is not null)
                throw failure;
        }
        while (read > 0);
    }

    /// <summary>
    /// Reads what a container uses. Takes one to two seconds while it runs: the engine measures twice, a second apart, or there would be no
    /// processor use in percent. Of one that does not run Docker answers zeros, and Podman may refuse. 404: absent.
    /// </summary>
    public async Task<ContainerStats> ReadStatsAsync(string id, CancellationToken cancellationToken)
    {
        // not one-shot: that leaves the first measurement out, and the caller would have to keep it from one call to the next
        var call = EngineCall.Get(EnginePaths.Container(HttpMethod.Get, id, "/stats")).With("stream", "0");
        using var answer = await _engine.SendAsync(call, cancellationToken);
        return (await answer.ReadJsonAsync(DockerJson.Default.StatsAnswer, cancellationToken)).ToStats();
    }

    /// <summary>
    /// Asks a container to end, and ends it by force after the grace. Returns when it has ended; one that has already is fine. 404:
    /// absent.
    /// </summary>
    /// <param name="id">The container.</param>
    /// <param name="grace">How long it may take by itself; rounded up to whole seconds.</param>
    /// <param name="cancellationToken">Ends the waiting; the engine goes on stopping it.</param>
    public Task StopContainerAsync(string id, TimeSpan grace, CancellationToken cancellationToken)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(grace, TimeSpan.Zero);
        var seconds = (long)Math.Ceiling(grace.TotalSeconds);
        return DoAsync(EngineCall.Post(EnginePaths.Container(HttpMethod.Post, id, "/stop")).With("t", Text(seconds)), cancellationToken);
    }

    /// <summary>Sends a signal, <c>SIGTERM</c> for example. 404: absent; 409: it does not run; 400: no such signal.</summary>
    public Task KillContainerAsync(string id, string signal, CancellationToken cancellationToken) =>
        DoAsync(EngineCall.Post(EnginePaths.Container(HttpMethod.Post, id, "/kill")).With("signal", signal), cancellationToken);

    /// <summary>Waits until a container does not run, which holds as well before its start, and returns its exit code. 404: absent.</summary>
    public async Task<int> WaitContainerAsync(string id, CancellationToken cancellationToken)
    {
        var call = EngineCall.Post(EnginePaths.Container(HttpMethod.Post, id, "/wait")).With("condition", "not-running");
        using var answer = await _engine.SendAsync(call, cancellationToken);
        var ended = await answer.ReadJsonAsync(DockerJson.Default.WaitAnswer, cancellationToken);
        return ended.Error?.Message is { Length: > 0 } message ? throw answer.Unusable(message) : (int)ended.StatusCode;
    }

    /// <summary>
    /// Removes a container and its anonymous volumes. 404: absent; 409: it runs and <paramref name="force"/> is false, or it is being
    /// removed.
    /// </summary>
    public Task RemoveContainerAsync(string id, bool force, CancellationToken cancellationToken) =>
        DoAsync(
            EngineCall.Delete(EnginePaths.Container(HttpMethod.Delete, id)).With("force", force ? "1" : "0").With("v", "1"), cancellationToken);

    /// <summary>
    /// Watches what happens on the engine, in its order and no faster than the caller takes it. Who must miss nothing gives
    /// <see cref="EventQuery.Since"/>. An engine that breaks off ends the stream with an exception, one that is shut down may just end it; the
    /// <see cref="EngineEvent.Time"/> of the last event is then where to go on. 400 or 500: the engine cannot read a time.
    /// </summary>
    public async IAsyncEnumerable<EngineEvent> WatchEventsAsync(
        EventQuery query, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(query);
        using var answer = await _engine.SendAsync(EventCall(query), cancellationToken);
        await foreach (var found in answer.ReadJsonObjectsAsync(DockerJson.Default.EventAnswer, cancellationToken))
            yield return found.ToEvent();
    }

    /// <summary>Closes its connections; calls under way fail.</summary>
    public void Dispose() => _engine.Dispose();

    private async Task DoAsync(EngineCall call, CancellationToken cancellationToken)
    {
        using var answer = await _engine.SendAsync(call, cancellationToken);
    }

    private static EngineCall LogCall(string id, LogQuery query)
    {
        var call = EngineCall.Get(EnginePaths.Container(HttpMethod.Get, id, "/logs")).With("stdout", "1").With("stderr", "1")
            .With("follow", query.Follow ? "1" : "0")
            .With("timestamps", query.Timestamps ? "1" : "0")
            .With("tail", query.Tail is { } tail ? Text(tail) : "all");
        return query.Since is null ? call : call.With("since", query.Since);
    }

    private static EngineCall EventCall(EventQuery query)
    {
        var call = EngineCall.Get("/events");
        if (query.Since is not null)
            call.With("since", query.Since);
        if (query.Until is not null)
            call.With("until", query.Until);
        return query is { Types.Count: 0, Labels.Count: 0, Actions.Count: 0 }
            ? call
            : call.With("filters", Filters(("type", query.Types), ("label", LabelTexts(query.Labels)), ("event", query.Actions)));
    }

    /// <summary>From API 1.42 on the content type tells; older engines leave it to the caller to know whether there is a terminal.</summary>
    private async Task<bool> IsFramedAsync(string id, EngineAnswer answer, CancellationToken cancellationToken) => answer.ContentType switch
    {
        "application/vnd.docker.multiplexed-stream" => true,
        "application/vnd.docker.raw-stream" => false,
        _ => !(await InspectContainerAsync(id, cancellationToken)).Tty,
    };

    /// <summary>The names with values only; to an engine an empty list is one that nothing is in.</summary>
    private static string Filters(params (string Name, IReadOnlyList<string> Values)[] filters) => JsonSerializer.Serialize(
        filters.Where(f => f.Values.Count > 0).ToDictionary(f => f.Name, f => f.Values), DockerJson.Default.DictionaryStringIReadOnlyListString);

    private static string[] LabelTexts(IReadOnlyDictionary<string, string?> labels) =>
        [.. labels.Select(l => l.Value is null ? l.Key : $"{l.Key}={l.Value}")];

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
