using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>The <c>metadata.json</c> of a backend, in LocalAI's words.</summary>
internal static class BackendMetadata
{
    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true };

    /// <summary>What is kept beside an artifact: of a model as it was asked for; of a backend what was asked for, else what it brought, and what the node knows.</summary>
    public static string Write(PullRequest request, Artifact artifact, string tree)
    {
        if (request.Kind != ArtifactKind.Backend)
            return request.Metadata;
        var metadata = Parse(request.Metadata) ?? Parse(ArtifactFolders.TextOf(tree, ArtifactFolders.MetadataFile)) ?? [];
        void Add(string name, string value)
        {
            if (value.Length > 0 && !metadata.ContainsKey(name))
                metadata[name] = value;
        }
        Add("name", artifact.Name);
        Add("version", artifact.Version);
        Add("uri", artifact.Uris[0]);
        Add("digest", artifact.Digest);
        Add("installed_at", DateTimeOffset.FromUnixTimeMilliseconds((long)(artifact.InstalledAt * 1000)).ToString("yyyy-MM-ddTHH:mm:ssZ", CultureInfo.InvariantCulture));
        return metadata.ToJsonString(s_indented);
    }

    private static JsonObject? Parse(string? text)
    {
        try
        {
            return string.IsNullOrEmpty(text) ? null : JsonNode.Parse(text) as JsonObject;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
