namespace ModelHost.Features.Settings;

/// <summary>A runtime setting that was changed through the API.</summary>
internal sealed class SettingValue
{
    /// <summary>Its name in the API.</summary>
    public required string Key { get; set; }

    /// <summary>Its value as JSON.</summary>
    public required string Value { get; set; }
}
