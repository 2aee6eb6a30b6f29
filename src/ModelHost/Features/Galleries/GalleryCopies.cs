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
    private readonly string _folder = folder.PrivateFolder(Path.Combine("cache", "galleries")).FullName;

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
    public async Task<byte[]?> ReadAsync(GalleryCopy copy, CancellationToken cancellationToken)
    {
        try
        {
            var content = await File.ReadAllBytesAsync(Place(copy.Source, ".yaml"), cancellationToken);
            return Hash(content) == copy.Sha256 ? content : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Keeps a copy. A disk that is full keeps none, which harms nobody now.</summary>
    public async Task KeepAsync(string source, string? etag, byte[] content, CancellationToken cancellationToken)
    {
        try
        {
            await WriteAsync(Place(source, ".yaml"), content, cancellationToken);
            await WriteAsync(Place(source, ".json"), JsonSerializer.SerializeToUtf8Bytes(new GalleryCopy(source, etag, Hash(content))), cancellationToken);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // the next reading keeps one
        }
    }

    private static async Task WriteAsync(string path, byte[] content, CancellationToken cancellationToken)
    {
        var temporary = $"{path}.{Guid.NewGuid():N}";
        await File.WriteAllBytesAsync(temporary, content, cancellationToken);
        File.Move(temporary, path, overwrite: true);
    }

    private string Place(string source, string extension) => Path.Combine(_folder, Hash(Encoding.UTF8.GetBytes(source)) + extension);

    private static string Hash(byte[] content) => Convert.ToHexStringLower(SHA256.HashData(content));
}
