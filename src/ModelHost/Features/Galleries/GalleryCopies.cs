using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using ModelHost.Hosting;

namespace ModelHost.Features.Galleries;

/// <summary>A copy on disk of what a source answered.</summary>
/// <param name="Source">The source.</param>
/// <param name="ETag">The version that the source called it; null: none.</param>
/// <param name="Sha256">Hash of the content: one that was cut or changed is no copy.</param>
internal sealed record GalleryCopy(string Source, string? ETag, string Sha256);

/// <summary>Keeps what galleries answered last, for when they do not.</summary>
internal sealed class GalleryCopies(DataFolder folder)
{
    // of whoever was ended while something came, or was written; the folder is this process's alone
    private const string Unfinished = "*.tmp";

    /// <summary>Where they are, and for a moment what is being fetched.</summary>
    public string Folder { get; } = Tidy(folder.PrivateFolder(Path.Combine("cache", "galleries")).FullName);

    /// <summary>The copy of a source; null: there is none.</summary>
    public GalleryCopy? Find(string source)
    {
        try
        {
            return JsonSerializer.Deserialize<GalleryCopy>(File.ReadAllBytes(Place(source, ".json"))) is { } copy && copy.Source == source ? copy : null;
        }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>The content of a copy; null: it is not whole.</summary>
    public async Task<Stream?> OpenAsync(GalleryCopy copy, CancellationToken cancellationToken)
    {
        FileStream? content = null;
        var isWhole = false;
        try
        {
            content = new FileStream(Place(copy.Source, ".yaml"), FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            isWhole = await HashAsync(content, cancellationToken) == copy.Sha256;
            return isWhole ? content : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
        finally
        {
            if (!isWhole && content is not null)
                await content.DisposeAsync();
        }
    }

    /// <summary>Keeps a copy. A disk that is full keeps none, which harms nobody now.</summary>
    public async Task KeepAsync(string source, string? etag, Stream content, CancellationToken cancellationToken)
    {
        try
        {
            var sha256 = await HashAsync(content, cancellationToken);
            await WriteAsync(Place(source, ".yaml"), content, cancellationToken);
            await WriteAsync(Place(source, ".json"), new MemoryStream(JsonSerializer.SerializeToUtf8Bytes(new GalleryCopy(source, etag, sha256))), cancellationToken);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // the next reading keeps one
        }
    }

    private static async Task WriteAsync(string path, Stream content, CancellationToken cancellationToken)
    {
        var temporary = $"{path}.{Guid.NewGuid():N}.tmp";
        try
        {
            await using (var file = new FileStream(temporary, FileMode.CreateNew, FileAccess.Write))
                await content.CopyToAsync(file, cancellationToken);
            File.Move(temporary, path, overwrite: true);
        }
        catch
        {
            File.Delete(temporary); // on a full disk each reading would leave one more
            throw;
        }
    }

    private static async Task<string> HashAsync(Stream content, CancellationToken cancellationToken)
    {
        content.Position = 0;
        var hash = Convert.ToHexStringLower(await SHA256.HashDataAsync(content, cancellationToken));
        content.Position = 0;
        return hash;
    }

    private static string Tidy(string folder)
    {
        foreach (var left in Directory.EnumerateFiles(folder, Unfinished))
            File.Delete(left);
        return folder;
    }

    private string Place(string source, string extension) => Path.Combine(Folder, Hash(Encoding.UTF8.GetBytes(source)) + extension);

    private static string Hash(byte[] content) => Convert.ToHexStringLower(SHA256.HashData(content));
}
