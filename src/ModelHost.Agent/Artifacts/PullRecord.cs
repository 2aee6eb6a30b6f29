using System.Text.Json;
using System.Text.Json.Serialization;
using Google.Protobuf;
using ModelHost.Agent.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Artifacts;

/// <summary>What a node keeps of a pull, so that it goes on with it after a restart, and still tells how it ended.</summary>
internal sealed record PullRecord
{
    /// <summary>What was asked for, without its token; null: only that it is not to begin.</summary>
    public PullRequest? Request { get; init; }

    /// <summary>The token, sealed with the node's key; null: there is none, or no need of it any more.</summary>
    public string? Token { get; init; }

    /// <summary>How it stands; while it is under way, how it stood at its beginning, or when it was whole.</summary>
    public required Pull State { get; init; }

    /// <summary>When one that is held was last asked for.</summary>
    public DateTimeOffset? AskedAt { get; init; }

    /// <summary>Whether it is whole, and waits for the word to take its place.</summary>
    public bool IsStaged => State.Phase == PullPhase.Staged;

    /// <summary>Whether it has ended.</summary>
    public bool IsEnded => State.Phase is PullPhase.Done or PullPhase.Failed or PullPhase.Cancelled;
}

/// <summary>The records of a node: a file each in the data folder's <c>pulls</c>.</summary>
internal sealed class PullRecords(string dataFolder, RunRecords seals)
{
    private const string TokenName = "token";
    private static readonly JsonParser s_parser = new(JsonParser.Settings.Default.WithIgnoreUnknownFields(true));
    private readonly string _folder = Path.Combine(dataFolder, "pulls");

    /// <summary>All records; files that are none are passed over.</summary>
    public IReadOnlyList<PullRecord> ReadAll() =>
        Directory.Exists(_folder) ? [.. Directory.EnumerateFiles(_folder, "*.json").Select(Read).OfType<PullRecord>()] : [];

    /// <summary>Writes a record whole or not at all.</summary>
    /// <exception cref="IOException">The disk is full.</exception>
    public void Write(PullRecord record)
    {
        var stored = new StoredPull(record.Request is null ? null : JsonFormatter.Default.Format(record.Request), record.Token, JsonFormatter.Default.Format(record.State), record.AskedAt);
        WholeFile.Write(PathOf(record.State.PullId), file => JsonSerializer.Serialize(file, stored, StoredPullJson.Default.StoredPull));
    }

    /// <summary>Forgets a pull.</summary>
    public void Delete(string pullId) => File.Delete(PathOf(pullId));

    /// <summary>Seals a token for <see cref="PullRecord.Token"/>.</summary>
    public string? Seal(string token) => token.Length == 0 ? null : seals.Seal(new Dictionary<string, string> { [TokenName] = token });

    /// <summary>The token back; null: there is none, or it was sealed with another key.</summary>
    public string? Token(PullRecord record) => seals.Open(record.Token).GetValueOrDefault(TokenName);

    private static PullRecord? Read(string path)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllBytes(path), StoredPullJson.Default.StoredPull) is not { } stored ? null : new PullRecord
            {
                Request = stored.Request is null ? null : s_parser.Parse<PullRequest>(stored.Request),
                Token = stored.Token,
                State = s_parser.Parse<Pull>(stored.State),
                AskedAt = stored.AskedAt,
            };
        }
        catch (Exception e) when (e is JsonException or InvalidProtocolBufferException or InvalidJsonException or FileNotFoundException)
        {
            return null;
        }
    }

    private string PathOf(string pullId) =>
        Guid.TryParse(pullId, out var id) ? Path.Combine(_folder, id.ToString("N") + ".json") : throw new ArgumentException("a pull id is a GUID", nameof(pullId));
}

/// <summary>A record as it lies on the disk: the messages in their own JSON.</summary>
internal sealed record StoredPull(string? Request, string? Token, string State, DateTimeOffset? AskedAt = null);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(StoredPull))]
internal sealed partial class StoredPullJson : JsonSerializerContext;
