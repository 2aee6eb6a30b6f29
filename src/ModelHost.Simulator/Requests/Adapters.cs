using System.Collections.Immutable;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Requests;

/// <summary>The LoRA adapters that requests may name, and how many requests of each wait and run.</summary>
internal sealed class Adapters(ServerOptions options, TimeProvider time)
{
    private readonly Lock _gate = new();
    private readonly SortedDictionary<string, (int Waiting, int Running)> _busy = new(StringComparer.Ordinal);
    private readonly Dictionary<(string Waiting, string Running), double> _seen = [];
    private volatile ImmutableList<LoraModule> _all = [.. options.Loras];

    /// <summary>The server takes adapters at all.</summary>
    public bool Enabled { get; } = options.Flags.Switch("enable_lora");

    public ImmutableList<LoraModule> All => _all;

    public bool Has(string name) => All.Any(adapter => adapter.Name == name);

    /// <summary>Adds one; another of its name gives way only when <paramref name="replace"/> says so.</summary>
    public bool TryAdd(LoraModule adapter, bool replace)
    {
        lock (_gate)
        {
            var others = All.RemoveAll(known => known.Name == adapter.Name);
            if (others.Count < All.Count && !replace)
                return false;
            _all = others.Add(adapter);
            return true;
        }
    }

    public bool TryRemove(string name)
    {
        lock (_gate)
        {
            var others = All.RemoveAll(known => known.Name == name);
            if (others.Count == All.Count)
                return false;
            _all = others;
            return true;
        }
    }

    /// <summary>The requests of an adapter changed by so many.</summary>
    public void Count(string name, int waiting, int running)
    {
        lock (_gate)
        {
            var before = _busy.GetValueOrDefault(name);
            _busy[name] = (before.Waiting + waiting, before.Running + running);
            var combination = (
                string.Join(',', _busy.Where(entry => entry.Value.Waiting > 0).Select(entry => entry.Key)),
                string.Join(',', _busy.Where(entry => entry.Value.Running > 0).Select(entry => entry.Key)));
            _seen[combination] = time.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0;
        }
    }

    /// <summary>Every combination of waiting and running adapters there ever was, with the time it was last seen.</summary>
    public IReadOnlyList<(string Waiting, string Running, double Seen)> Seen()
    {
        lock (_gate)
            return [.. _seen.Select(pair => (pair.Key.Waiting, pair.Key.Running, pair.Value))];
    }
}
