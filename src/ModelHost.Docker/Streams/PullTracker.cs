using ModelHost.Docker.Wire;

namespace ModelHost.Docker.Streams;

/// <summary>Sums up what a pull says about its layers.</summary>
internal sealed class PullTracker
{
    // Images have at most 127 layers. An engine that keeps inventing names must not fill the memory.
    private const int MaxLayers = 1024;

    private readonly Dictionary<string, Layer> _layers = [];

    public PullProgress Apply(StreamMessage message)
    {
        var status = message.Status ?? "";
        // the first line carries the tag where others carry a layer
        var id = status.StartsWith("Pulling from", StringComparison.Ordinal) ? null : message.Id;
        if (id is not null)
            ApplyToLayer(id, status, message.Progress);
        var total = _layers.Values.Sum(l => l.Total);
        var done = _layers.Values.Sum(l => l.Current);
        return new()
        {
            Status = status,
            Layer = id,
            Layers = _layers.Count,
            LayersDone = _layers.Values.Count(l => l.Phase == Phase.Done),
            LayersExtracting = _layers.Values.Count(l => l.Phase == Phase.Extracting),
            DoneBytes = done,
            TotalBytes = total,
            Percent = total > 0 ? 100.0 * done / total : null,
        };
    }

    private void ApplyToLayer(string id, string status, ProgressDetail? detail)
    {
        // "Exists": the first engines with the containerd image store
        if (status is "Already exists" or "Exists")
        {
            _layers.Remove(id);
            return;
        }
        if (!_layers.TryGetValue(id, out var layer))
        {
            if (_layers.Count == MaxLayers)
                return;
            _layers[id] = layer = new();
        }
        switch (status)
        {
            case "Downloading" when detail is not null:
                layer.Phase = Phase.Downloading;
                // a registry that does not tell the size: it is what has come so far
                layer.Total = Math.Max(detail.Total, Math.Max(layer.Total, detail.Current));
                layer.Current = Math.Max(0, detail.Current);
                break;
            case "Download complete" or "Verifying Checksum":
                layer.Phase = Phase.Downloaded;
                layer.Current = layer.Total;
                break;
            // its numbers count unpacking from the start again
            case "Extracting":
                layer.Phase = Phase.Extracting;
                layer.Current = layer.Total;
                break;
            case "Pull complete":
                layer.Phase = Phase.Done;
                layer.Current = layer.Total;
                break;
            default:
                if (status.StartsWith("Retrying", StringComparison.Ordinal))
                    layer.Current = 0;
                break;
        }
    }

    private enum Phase { Waiting, Downloading, Downloaded, Extracting, Done }

    private sealed class Layer
    {
        public Phase Phase { get; set; }
        public long Current { get; set; }
        public long Total { get; set; }
    }
}
