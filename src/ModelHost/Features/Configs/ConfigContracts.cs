using System.ComponentModel.DataAnnotations;
using System.Text.Json;

namespace ModelHost.Features.Configs;

/// <summary>Fields of a deployment to keep under a name.</summary>
public sealed record DeploymentConfigCreate
{
    /// <summary>Unique name of the configuration, 1 to 255 characters.</summary>
    [Required, StringLength(255, MinimumLength = 1)]
    public string? Name { get; init; }

    /// <summary>
    /// Any JSON object of up to 256 KiB, 32 levels deep. Values below env_vars are stored encrypted and read as ********; sent back as that, a value that is
    /// stored stays.
    /// </summary>
    [Required]
    public JsonElement? Payload { get; init; }
}

/// <summary>A saved configuration.</summary>
/// <param name="Id">Its id.</param>
/// <param name="Name">Its unique name.</param>
/// <param name="Payload">As it was saved, with a mask for every value below env_vars.</param>
/// <param name="CreatedAt">When it was saved first.</param>
internal sealed record DeploymentConfigRead(int Id, string Name, JsonElement Payload, DateTimeOffset CreatedAt);
