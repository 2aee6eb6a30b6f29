using System.Collections.Immutable;
using System.Globalization;

namespace ModelHost.Core.Nodes;

/// <summary>What of a node takes no new deployments. What runs there goes on.</summary>
public sealed class Cordon
{
    private const string All = "all";
    private readonly ImmutableSortedSet<int> _gpus;

    private Cordon(bool isWhole, ImmutableSortedSet<int> gpus) => (IsWhole, _gpus) = (isWhole, gpus);

    /// <summary>Everything takes deployments.</summary>
    public static Cordon None { get; } = new(false, []);

    /// <summary>Nothing does, GPUs that turn up later included.</summary>
    public static Cordon Whole { get; } = new(true, []);

    /// <summary>Whether it is the node that is cordoned, and not some GPUs of it.</summary>
    public bool IsWhole { get; }

    /// <summary>The cordon after some GPUs were cordoned or uncordoned.</summary>
    /// <param name="gpus">Their indices; empty: the node.</param>
    /// <param name="enabled">Whether they are cordoned.</param>
    /// <param name="known">The GPUs that the node has.</param>
    public Cordon With(IReadOnlyCollection<int> gpus, bool enabled, IEnumerable<int> known)
    {
        ArgumentNullException.ThrowIfNull(gpus);
        if (gpus.Count == 0)
            return enabled ? Whole : None;
        if (enabled)
            return IsWhole ? this : new(false, _gpus.Union(gpus));
        return new(false, (IsWhole ? [.. known] : _gpus).Except(gpus));
    }

    /// <summary>Whether a GPU takes no new deployments.</summary>
    public bool Covers(int gpu) => IsWhole || _gpus.Contains(gpu);

    /// <summary>Whether nothing on the node takes any. Where its GPUs are unknown, one that is cordoned is enough.</summary>
    /// <param name="known">The GPUs that the node has.</param>
    public bool CoversAll(IReadOnlyCollection<int> known)
    {
        ArgumentNullException.ThrowIfNull(known);
        return IsWhole || (!_gpus.IsEmpty && known.All(_gpus.Contains));
    }

    /// <summary>The cordoned GPUs in ascending order; of a whole node all that it has.</summary>
    /// <param name="known">The GPUs that the node has.</param>
    public IReadOnlyList<int> Gpus(IEnumerable<int> known) => IsWhole ? [.. known.Order()] : _gpus;

    /// <summary>The form in which it is stored.</summary>
    public override string ToString() => IsWhole ? All : string.Join(',', _gpus);

    /// <summary>Reads what <see cref="ToString"/> wrote.</summary>
    public static Cordon Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return text == All ? Whole
            : new(false, [.. text.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(index => int.Parse(index, CultureInfo.InvariantCulture))]);
    }
}
