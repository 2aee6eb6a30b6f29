using System.Text.Json;
using System.Text.Json.Serialization;

namespace ModelHost.Features.Events;

/// <summary>What a client of <c>/ws</c> receives.</summary>
/// <param name="Type">deployments_changed, nodes_changed, settings_changed or api_keys_changed.</param>
/// <param name="Ids">The deployments that changed; absent: any of them, or another type.</param>
internal sealed record EventMessage(string Type, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<int>? Ids = null)
{
    private static readonly EventMessage[] All = [new("deployments_changed"), new("nodes_changed"), new("settings_changed"), new("api_keys_changed")];

    /// <summary>The messages that tell of a change.</summary>
    public static IReadOnlyList<EventMessage> Of(Change change) => change.Kind switch
    {
        ChangeKind.Deployments => [All[0] with { Ids = change.Ids }],
        ChangeKind.Nodes => [All[1]],
        ChangeKind.Settings => [All[2]],
        ChangeKind.ApiKeys => [All[3]],
        ChangeKind.Configs or ChangeKind.JoinTokens or ChangeKind.Galleries or ChangeKind.Jobs => [],
        // the page knows no event for "anything": each of them says it of its own
        ChangeKind.Missed => All,
    };

    /// <summary>The message as it is sent.</summary>
    public byte[] ToJson() => JsonSerializer.SerializeToUtf8Bytes(this, EventJson.Default.EventMessage);
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(EventMessage))]
internal sealed partial class EventJson : JsonSerializerContext;
