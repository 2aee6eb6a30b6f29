using System.Collections.Frozen;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using ModelHost.Data;
using ModelHost.Features.Events;

namespace ModelHost.Features.Settings;

/// <summary>Where the value of a setting comes from.</summary>
internal static class SettingSource
{
    public const string Database = "database", Configuration = "configuration", Default = "default";
}

/// <summary>
/// The runtime settings as they are now. Whoever acts on one reads <see cref="Current"/> each time; whoever waits because of one awaits
/// <see cref="ChangedAsync"/> as well.
/// </summary>
/// <param name="database">Keeps what was changed.</param>
/// <param name="feed">Is told of changes.</param>
/// <param name="configured">The settings without the database.</param>
/// <param name="configuredNames">Those that the configuration names, as it spells them.</param>
/// <param name="logger">Is told of changes, never of values: one of them may be an address that is a secret.</param>
internal sealed partial class LiveSettings(
    Database database, ChangeFeed feed, RuntimeSettings configured, IReadOnlySet<string> configuredNames, ILogger<LiveSettings> logger) : IDisposable
{
    private readonly SemaphoreSlim _writing = new(1);
    private volatile State _state = new(configured, FrozenDictionary<string, string>.Empty);

    /// <summary>All values, at one moment.</summary>
    public RuntimeSettings Current => _state.Settings;

    /// <summary>Completes when a value changes after this call: ask first, then read <see cref="Current"/>.</summary>
    public Task ChangedAsync(CancellationToken cancellationToken) => _state.Replaced.Task.WaitAsync(cancellationToken);

    /// <summary>Where each value comes from, by the setting's name: one of <see cref="SettingSource"/>.</summary>
    public IReadOnlyDictionary<string, string> Sources()
    {
        var stored = _state.Stored;
        return Setting.All.Values.ToDictionary(setting => setting.Key, setting =>
            stored.ContainsKey(setting.Key) ? SettingSource.Database
            : configuredNames.Contains(setting.Property) ? SettingSource.Configuration
            : SettingSource.Default);
    }

    /// <summary>Reads what is stored. A value that a newer version stored, or that is not allowed any more, is passed over.</summary>
    public async Task LoadAsync(CancellationToken cancellationToken)
    {
        await using var db = await database.OpenAsync(cancellationToken);
        var rows = await db.Settings.AsNoTracking().ToListAsync(cancellationToken);
        Swap(rows.Where(IsUsable).ToFrozenDictionary(row => row.Key, row => row.Value));
    }

    /// <summary>Stores values that have been found to be without fault; they count from the return on.</summary>
    /// <returns>All values.</returns>
    public async Task<RuntimeSettings> SaveAsync(IReadOnlyDictionary<string, string> values, CancellationToken cancellationToken)
    {
        await _writing.WaitAsync(cancellationToken);
        try
        {
            await using var db = await database.OpenAsync(cancellationToken);
            var rows = await db.Settings.ToDictionaryAsync(row => row.Key, cancellationToken);
            foreach (var (key, value) in values)
            {
                if (rows.TryGetValue(key, out var row))
                    row.Value = value;
                else
                    db.Settings.Add(new SettingValue { Key = key, Value = value });
            }
            await database.SaveAsync(db, cancellationToken);
            Swap(_state.Stored.Where(stored => !values.ContainsKey(stored.Key)).Concat(values).ToFrozenDictionary());
        }
        finally
        {
            _writing.Release();
        }
        LogChanged(string.Join(", ", values.Keys));
        feed.Publish(Change.Settings);
        return Current;
    }

    public void Dispose() => _writing.Dispose();

    private void Swap(FrozenDictionary<string, string> stored)
    {
        var before = _state;
        _state = new State(Setting.Replace(configured, stored), stored);
        before.Replaced.TrySetResult();
    }

    private bool IsUsable(SettingValue row)
    {
        if (!Setting.All.TryGetValue(row.Key, out var setting))
        {
            LogPassedOver(row.Key, "there is no such setting");
            return false;
        }
        try
        {
            using var value = JsonDocument.Parse(row.Value);
            if (setting.Fault(value.RootElement) is null)
                return true;
        }
        catch (JsonException)
        {
            // as below
        }
        LogPassedOver(row.Key, "its value is not allowed any more");
        return false;
    }

    [LoggerMessage(1501, LogLevel.Information, "Settings were changed: {Settings}.")]
    private partial void LogChanged(string settings);

    [LoggerMessage(1502, LogLevel.Warning, "The stored setting {Setting} is passed over: {Reason}.")]
    private partial void LogPassedOver(string setting, string reason);

    private sealed record State(RuntimeSettings Settings, FrozenDictionary<string, string> Stored)
    {
        public TaskCompletionSource Replaced { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
