namespace ModelHost.Simulator.Server;

/// <summary>A response that may be asked for again.</summary>
/// <param name="id">Its id.</param>
/// <param name="json">The response as it is now.</param>
/// <param name="status">Its status.</param>
/// <param name="cancel">Ends it, if it runs in the background.</param>
internal sealed class StoredResponse(string id, byte[] json, string status, CancellationTokenSource? cancel)
{
    private readonly Lock _gate = new();
    private Task _run = Task.CompletedTask;

    public string Id { get; } = id;

    /// <summary>The response as it is now.</summary>
    public byte[] Json { get; private set; } = json;

    public string Status { get; private set; } = status;

    /// <summary>The messages that the next response builds on, as JSON; null when it says nothing.</summary>
    public byte[]? Messages { get; private set; }

    /// <summary>The events of a response that is streamed in the background.</summary>
    public RecordedEvents? Events { get; init; }

    /// <summary>Nothing will change it any more.</summary>
    public bool IsSettled => Status is not ("queued" or "in_progress") && _run.IsCompleted;

    public long Bytes => Json.Length + (Messages?.Length ?? 0) + (Events?.Bytes ?? 0);

    /// <summary>Holds on to what brings it to its end.</summary>
    public void Run(Task run) => _run = run;

    /// <summary>Moves on to another state, unless the response was cancelled meanwhile.</summary>
    public void Become(string status, byte[] json, byte[]? messages)
    {
        lock (_gate)
            if (Status != "cancelled")
                (Status, Json, Messages) = (status, json, messages);
    }

    /// <summary>Cancels a response that is not at its end.</summary>
    /// <returns>False when it is.</returns>
    public bool TryCancel(byte[] json)
    {
        lock (_gate)
        {
            if (Status is not ("queued" or "in_progress"))
                return false;
            (Status, Json) = ("cancelled", json);
        }
        cancel?.Cancel();
        return true;
    }
}

/// <summary>
/// The responses that clients may ask for, the oldest of which go when there are too many. vLLM never lets go of one; what stands in for
/// it must not grow for as long as it runs.
/// </summary>
internal sealed class ResponseStore
{
    /// <summary>Responses that are kept.</summary>
    public const int Capacity = 1000;

    private const long MaxBytes = 64 << 20;

    private readonly Lock _gate = new();
    private readonly Dictionary<string, LinkedListNode<StoredResponse>> _byId = [];
    private readonly LinkedList<StoredResponse> _byAge = [];

    public StoredResponse? Find(string id)
    {
        lock (_gate)
            return _byId.GetValueOrDefault(id)?.Value;
    }

    /// <summary>Keeps a response, in the place of one with its id.</summary>
    /// <returns>False when as many as may be kept are still under way.</returns>
    public bool TryAdd(StoredResponse response)
    {
        lock (_gate)
        {
            Remove(response.Id);
            _byId[response.Id] = _byAge.AddLast(response);
            Trim();
            if (_byAge.Count <= Capacity)
                return true;
            Remove(response.Id);
            return false;
        }
    }

    /// <summary>Lets go of the oldest ones that are at their end, as long as there is too much.</summary>
    public void Trim()
    {
        lock (_gate)
        {
            var bytes = _byAge.Sum(response => response.Bytes);
            for (var node = _byAge.First; node is not null && (_byAge.Count > Capacity || bytes > MaxBytes);)
            {
                var next = node.Next;
                if (node.Value.IsSettled && next is not null)
                {
                    bytes -= node.Value.Bytes;
                    Remove(node.Value.Id);
                }
                node = next;
            }
        }
    }

    private void Remove(string id)
    {
        if (_byId.Remove(id, out var node))
            _byAge.Remove(node);
    }
}
