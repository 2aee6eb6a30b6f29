using System.Text.Json;

namespace ModelHost.Features.Settings;

/// <summary>A partial update as it was sent: what can be stored of it, and what is wrong with it. With anything wrong nothing is stored.</summary>
internal sealed class SettingsUpdate
{
    private const int MaxErrors = 50;
    private const int MaxName = 64;
    private readonly Dictionary<string, string> _values = [];
    private readonly Dictionary<string, string[]> _errors = [];

    private SettingsUpdate()
    {
    }

    /// <summary>The new values by name, as JSON.</summary>
    public IReadOnlyDictionary<string, string> Values => _values;

    /// <summary>The faults by name; empty: none.</summary>
    public IDictionary<string, string[]> Errors => _errors;

    /// <summary>Reads a body.</summary>
    public static SettingsUpdate Read(JsonElement body)
    {
        var update = new SettingsUpdate();
        if (body.ValueKind != JsonValueKind.Object)
            update._errors[""] = ["the body must be a JSON object"];
        else
        {
            foreach (var property in body.EnumerateObject().TakeWhile(_ => update._errors.Count < MaxErrors))
                update.Take(property);
            if (update is { _values.Count: 0, _errors.Count: 0 })
                update._errors[""] = ["nothing to change is given; null changes nothing, except of default_max_failed_restarts"];
        }
        return update;
    }

    private void Take(JsonProperty property)
    {
        string name;
        try
        {
            name = property.Name;
        }
        catch (InvalidOperationException)
        {
            _errors[""] = ["the name of a field is not Unicode"];
            return;
        }
        if (!Setting.All.TryGetValue(name, out var setting))
            _errors[name.Length <= MaxName ? name : name[..MaxName]] = [$"is no setting; there are {string.Join(", ", Setting.All.Keys.Order(StringComparer.Ordinal))}"];
        else if (property.Value.ValueKind == JsonValueKind.Null && !setting.TakesNull)
        {
            // as clients send it that fill in only what changed
        }
        else if (setting.Fault(property.Value) is { } fault)
            _errors[name] = [fault];
        else
            _values[name] = property.Value.GetRawText();
    }
}
