using ModelHost.Docker.Wire;

namespace ModelHost.Docker.Streams;

/// <summary>
/// Sums up what a pull says about its layers. Whatever the engine says, no figure that it sums up moves back: bytes that a retry fetches a
/// second time count once, and a phase that was left is not entered again, unless the engine says that it retries.
/// </summary>
internal sealed class PullTracker
{
    // Images have at most 127 layers. An engine that keeps inventing names must not fill the memory.
    private const int MaxLayers = 1024;

    // a pebibyte: the sum over all layers stays within a number
    private const long MaxBytes = 1L << 50;

    private readonly Dictionary<string, Layer> _layers = [];
    private string _said = "";
    private double? _percent;

    public PullProgress Apply(StreamMessage message)
    {
        var status = message.Status ?? "";
        // the first line carries the tag where others carry a layer
        var id = message.Id is not { Length: > 0 } || status.StartsWith("Pulling from", StringComparison.Ordinal) ? null : message.Id;
        var advanced = id is null ? status != _said : ApplyToLayer(id, status, message.Progress);
        if (id is null)
            _said = status;
        _percent = Max(_percent, Percent());
        return new()
        {
            Status = status,
            Layer = id,
            Advanced = advanced,
            Layers = _layers.Count,
            LayersDone = _layers.Values.Count(l => l.Phase == Phase.Done),
            LayersDownloaded = _layers.Values.Count(l => l.Phase >= Phase.Downloaded),
            LayersExtracting = _layers.Values.Count(l => l.Phase == Phase.Extracting),
            DoneBytes = _layers.Values.Sum(l => l.Done),
            TotalBytes = _layers.Values.Sum(l => l.Total),
            Percent = _percent,
        };
    }

    /// <summary>
    /// The share of all bytes. An engine tells a layer's size only when its download begins, three at a time: one whose size is not known counts as
    /// the others do on average, or the figure would be 100 as soon as the first small layer is there.
    /// </summary>
    private double? Percent()
    {
        double done = _layers.Values.Sum(l => l.Done), total = _layers.Values.Sum(l => l.Total);
        var known = _layers.Values.Count(l => l.Total > 0 || l.Phase >= Phase.Downloaded);
        return total > 0 ? 100 * done / (total * _layers.Count / known) : null;
    }

    /// <returns>Whether that was news.</returns>
    private bool ApplyToLayer(string id, string status, ProgressDetail? detail)
    {
        if (!_layers.TryGetValue(id, out var layer))
        {
            if (IsThere(status) || _layers.Count == MaxLayers)
                return IsThere(status);
            _layers[id] = layer = new();
        }
        // another pull fetched it meanwhile: what was counted of it stays counted
        if (IsThere(status) && layer.Total == 0)
            return _layers.Remove(id);
        var (phase, received, unpacked) = (layer.Phase, layer.Received, layer.Unpacked);
        layer.Apply(status, detail);
        // the countdown to a retry is none
        return layer.Phase > phase || layer.Received > received || layer.Unpacked != unpacked;
    }

    // "Exists": the first engines with the containerd image store
    private static bool IsThere(string status) => status is "Already exists" or "Exists";

    private static double? Max(double? one, double? other) => one > other ? one : other ?? one;

    private enum Phase { New, Waiting, Downloading, Downloaded, Extracting, Done }

    private sealed class Layer
    {
        public Phase Phase { get; private set; }

        /// <summary>Bytes of this attempt.</summary>
        public long Received { get; private set; }

        /// <summary>Bytes of the best attempt.</summary>
        public long Done { get; private set; }

        public long Total { get; private set; }

        public long Unpacked { get; private set; }

        public void Apply(string status, ProgressDetail? detail)
        {
            var (current, total) = (Bounded(detail?.Current), Bounded(detail?.Total));
            switch (status)
            {
                case "Downloading" when Phase <= Phase.Downloading:
                    Phase = Phase.Downloading;
                    Received = current;
                    Done = Math.Max(Done, current);
                    // a registry that does not tell the size: it is what has come so far
                    Total = Math.Max(Math.Max(Total, total), Done);
                    break;
                case "Download complete" or "Verifying Checksum":
                    Reach(Phase.Downloaded);
                    break;
                // its numbers count unpacking from the start again
                case "Extracting":
                    Reach(Phase.Extracting);
                    Unpacked = current;
                    break;
                case "Pull complete" or "Already exists" or "Exists":
                    Reach(Phase.Done);
                    break;
                case not null when status.StartsWith("Retrying", StringComparison.Ordinal):
                    (Phase, Received) = (Phase.Waiting, 0);
                    break;
                default:
                    Phase = Phase < Phase.Waiting ? Phase.Waiting : Phase;
                    break;
            }
        }

        private void Reach(Phase phase)
        {
            Phase = Phase < phase ? phase : Phase;
            Done = Total;
        }

        private static long Bounded(long? bytes) => Math.Clamp(bytes ?? 0, 0, MaxBytes);
    }
}
