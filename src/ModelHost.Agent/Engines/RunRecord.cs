using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;
using ModelHost.Core.Deployments;

namespace ModelHost.Agent.Engines;

/// <summary>
/// What a node keeps of a run beside its engine: what it was told last and what it has seen, so that it goes on alone. Labels cannot: they
/// stay as they were at the launch.
/// </summary>
internal sealed record RunRecord
{
    public required string DeploymentUid { get; init; }
    public required string RunId { get; init; }
    public required string Runtime { get; init; }

    /// <summary>The launch spec as it was told last.</summary>
    public required string Spec { get; init; }
    public required Lease Lease { get; init; }
    public string LatestVersion { get; init; } = "";

    /// <summary>Values of the variables, sealed with the node's key; null: none.</summary>
    public string? Environment { get; init; }

    /// <summary>The boot of the machine in which the engine was started.</summary>
    public string BootId { get; init; } = "";
    public DateTimeOffset? StartedAt { get; init; }

    /// <summary>Loopback port of the engine; null: it has not been started.</summary>
    public int? EnginePort { get; init; }

    /// <summary>Key of the run, sealed as <see cref="Environment"/> is.</summary>
    public string? EngineKey { get; init; }
    public DateTimeOffset? ReadyAt { get; init; }

    /// <summary>Bytes of GPU memory by what they are for, as the engine told; null: it has not.</summary>
    public IReadOnlyDictionary<string, long>? MemoryParts { get; init; }

    /// <summary>Whether the run is not to run any more, and why.</summary>
    public RunEnding Ending { get; init; }
}

/// <summary>Why a run is not to run any more.</summary>
internal enum RunEnding
{
    /// <summary>It is to run.</summary>
    None,
    /// <summary>The control plane said so.</summary>
    Told,
    /// <summary>Its lease ran out.</summary>
    Expired,
}

/// <summary>The records of a node: a file each in the data folder's <c>runs</c>, for its owner's eyes only.</summary>
internal sealed class RunRecords
{
    private const int TagBytes = 16, NonceBytes = 12, KeyBytes = 32;
    private const string BootIdFile = "/proc/sys/kernel/random/boot_id";

    private readonly string _folder;
    private readonly string _keys;
    private readonly Lock _lock = new();
    private byte[]? _key;

    public RunRecords(string dataFolder)
    {
        _folder = Path.Combine(dataFolder, "runs");
        _keys = Path.Combine(dataFolder, "keys");
        BootId = File.Exists(BootIdFile) ? File.ReadAllText(BootIdFile).Trim() : "";
    }

    /// <summary>Names the time since the machine was started.</summary>
    public string BootId { get; }

    /// <summary>All records; files that are none are passed over.</summary>
    public IReadOnlyList<RunRecord> ReadAll() =>
        Directory.Exists(_folder) ? [.. Directory.EnumerateFiles(_folder, "*.json").Select(Read).OfType<RunRecord>()] : [];

    /// <summary>Writes a record whole or not at all.</summary>
    /// <exception cref="IOException">The disk is full.</exception>
    public void Write(RunRecord record)
    {
        lock (_lock)
        {
            WholeFile.Write(PathOf(record.RunId), file => JsonSerializer.Serialize(file, record, RunRecordJson.Default.RunRecord));
        }
    }

    /// <summary>Forgets a run.</summary>
    public void Delete(string runId)
    {
        lock (_lock)
        {
            if (Directory.Exists(_folder))
                File.Delete(PathOf(runId));
        }
    }

    /// <summary>Seals values for <see cref="RunRecord.Environment"/>.</summary>
    public string? Seal(IReadOnlyDictionary<string, string> values)
    {
        if (values.Count == 0)
            return null;
        var plain = JsonSerializer.SerializeToUtf8Bytes(new Dictionary<string, string>(values), RunRecordJson.Default.DictionaryStringString);
        var box = new byte[NonceBytes + TagBytes + plain.Length];
        RandomNumberGenerator.Fill(box.AsSpan(0, NonceBytes));
        using var aes = new AesGcm(Key, TagBytes);
        aes.Encrypt(box.AsSpan(0, NonceBytes), plain, box.AsSpan(NonceBytes + TagBytes), box.AsSpan(NonceBytes, TagBytes));
        return Convert.ToBase64String(box);
    }

    /// <summary>The values back; none when they were sealed with another key.</summary>
    public IReadOnlyDictionary<string, string> Open(string? sealedValues)
    {
        try
        {
            var box = Convert.FromBase64String(sealedValues ?? "");
            if (box.Length < NonceBytes + TagBytes)
                return new Dictionary<string, string>();
            var plain = new byte[box.Length - NonceBytes - TagBytes];
            using var aes = new AesGcm(Key, TagBytes);
            aes.Decrypt(box.AsSpan(0, NonceBytes), box.AsSpan(NonceBytes + TagBytes), box.AsSpan(NonceBytes, TagBytes), plain);
            return JsonSerializer.Deserialize(plain, RunRecordJson.Default.DictionaryStringString) ?? [];
        }
        catch (Exception e) when (e is CryptographicException or FormatException or JsonException)
        {
            return new Dictionary<string, string>();
        }
    }

    /// <summary>Seals one value.</summary>
    public string? Seal(string value) => value.Length == 0 ? null : Seal(new Dictionary<string, string> { [""] = value });

    /// <summary>The value back; null: there is none, or it was sealed with another key.</summary>
    public string? OpenOne(string? sealedValue) => Open(sealedValue).GetValueOrDefault("");

    private static RunRecord? Read(string path)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllBytes(path), RunRecordJson.Default.RunRecord);
        }
        catch (Exception e) when (e is JsonException or FileNotFoundException)
        {
            return null;
        }
    }

    /// <summary>The node's key, made when it is wanted first; a disk that is full then is asked again.</summary>
    /// <exception cref="IOException">There is none, and none can be made.</exception>
    private byte[] Key
    {
        get
        {
            lock (_lock)
                return _key ??= ReadOrMakeKey(_keys);
        }
    }

    private static byte[] ReadOrMakeKey(string folder)
    {
        var path = Path.Combine(folder, "run-records.key");
        if (File.Exists(path) && File.ReadAllBytes(path) is { Length: KeyBytes } known)
            return known;
        var made = RandomNumberGenerator.GetBytes(KeyBytes);
        WholeFile.Write(path, file => file.Write(made));
        return made;
    }

    // run ids come from the control plane; none of them may name a file elsewhere
    private string PathOf(string runId) =>
        Guid.TryParse(runId, out _) ? Path.Combine(_folder, runId + ".json") : throw new ArgumentException("a run id is a GUID", nameof(runId));
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, UseStringEnumConverter = true)]
[JsonSerializable(typeof(RunRecord))]
[JsonSerializable(typeof(Dictionary<string, string>))]
internal sealed partial class RunRecordJson : JsonSerializerContext;
