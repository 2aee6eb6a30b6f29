using System.Text.Json;
using System.Text.Json.Serialization;

namespace ModelHost.Agent.Runtimes;

/// <summary>
/// The images that this node had a container engine pull: a file in the data folder's <c>images</c>. An engine does not tell who pulled an image, and what somebody
/// else brought is not the node's to delete.
/// </summary>
/// <param name="dataFolder">The node's data folder.</param>
/// <param name="engine">Name of the engine.</param>
/// <param name="time">Tells when.</param>
internal sealed class PulledImages(string dataFolder, string engine, TimeProvider time)
{
    private const int MaxImages = 1000;

    private readonly string _path = Path.Combine(dataFolder, "images", engine + ".json");
    private readonly Lock _lock = new();
    private Dictionary<string, PulledImage>? _images;

    /// <summary>What is known of an image; null: no pull of this node brought it.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="id">Its id: a name that leads to another image now is not the one that was pulled.</param>
    public PulledImage? Find(string name, string id)
    {
        lock (_lock)
            return Read().TryGetValue(name, out var image) && image.Id == id ? image : null;
    }

    /// <summary>Whether a pull of this node brought an image of the name, at some time.</summary>
    public bool Knows(string name)
    {
        lock (_lock)
            return Read().ContainsKey(name);
    }

    /// <summary>Notes an image that a pull brought.</summary>
    public void Note(string name, string id) => Change(images =>
    {
        images[name] = new PulledImage(id, time.GetUtcNow());
        if (images.Count > MaxImages)
            images.Remove(images.MinBy(image => image.Value.At).Key);
    });

    /// <summary>Forgets an image that is gone.</summary>
    public void Forget(string name)
    {
        if (Knows(name))
            Change(images => images.Remove(name));
    }

    private void Change(Action<Dictionary<string, PulledImage>> change)
    {
        lock (_lock)
        {
            change(Read());
            try
            {
                WholeFile.Write(_path, file => JsonSerializer.Serialize(file, Read(), PulledImagesJson.Default.DictionaryStringPulledImage));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // on a full disk: after a restart it counts as somebody else's, and stays
            }
        }
    }

    private Dictionary<string, PulledImage> Read()
    {
        try
        {
            return _images ??= File.Exists(_path) && JsonSerializer.Deserialize(File.ReadAllBytes(_path), PulledImagesJson.Default.DictionaryStringPulledImage) is { } read
                ? read.Where(image => image.Value is not null).ToDictionary() : [];
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException)
        {
            return _images = [];
        }
    }
}

/// <summary>An image that was pulled.</summary>
/// <param name="Id">Its id in the engine.</param>
/// <param name="At">When the pull had ended.</param>
internal sealed record PulledImage(string Id, DateTimeOffset At);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(Dictionary<string, PulledImage>))]
internal sealed partial class PulledImagesJson : JsonSerializerContext;
