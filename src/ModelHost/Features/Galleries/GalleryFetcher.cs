using System.Net;
using System.Text;
using Microsoft.Extensions.Options;
using ModelHost.Agent.Downloads;

namespace ModelHost.Features.Galleries;

/// <summary>What a source answered.</summary>
/// <param name="Content">The bytes, to be read as often as wanted; null: they are as they were.</param>
/// <param name="ETag">What it calls this version; null: nothing.</param>
internal sealed record Fetched(Stream? Content, string? ETag) : IAsyncDisposable
{
    public ValueTask DisposeAsync() => Content?.DisposeAsync() ?? ValueTask.CompletedTask;
}

/// <summary>Fetches indexes and configurations, in bounded time and size.</summary>
internal sealed class GalleryFetcher(GallerySources sources, GuardedHttp http, GalleryCopies copies, IOptions<GalleryOptions> options, TimeProvider time)
{
    private const string ReferenceExtension = ".ref";
    private const int MaxReference = 2048;
    // many may come at the same time, and wait to be taken apart: what is longer lies on the disk meanwhile
    private const int InMemory = 1024 * 1024;
    private static readonly Dictionary<string, string> NoHeaders = [];

    /// <summary>Fetches an index or a configuration. The address of a reference (<c>.ref</c>) leads to another beside it.</summary>
    /// <param name="source">How people call it.</param>
    /// <param name="place">Where it is.</param>
    /// <param name="etag">The version that is known already; null: none is.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="GalleryException">It is not to be had.</exception>
    public async Task<Fetched> FetchAsync(string source, SourcePlace place, string? etag, CancellationToken cancellationToken)
    {
        using var limit = new CancellationTokenSource(options.Value.Timeout, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
        try
        {
            if (place.BuiltIn is { } name)
                return new Fetched(new MemoryStream(BuiltInGallery.Read(name)), null);
            if (place.File is { } path)
                return new Fetched(Open(source, path), null);
            var address = place.Address!;
            if (address.AbsolutePath.EndsWith(ReferenceExtension, StringComparison.OrdinalIgnoreCase))
                address = await FollowAsync(address, linked.Token);
            return await GetAsync(address, etag, linked.Token);
        }
        catch (OperationCanceledException e) when (limit.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new GalleryException($"{Shown(source)} did not answer in {options.Value.Timeout.TotalSeconds:0.#} s", e);
        }
        catch (DownloadException e)
        {
            throw new GalleryException(e.Message, e); // names the address itself
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new GalleryException($"{Shown(source)} cannot be read: {e.Message}", e);
        }
    }

    /// <summary>A source for messages: what may be a signature is left out.</summary>
    public static string Shown(string source) => source.Split('?', '#')[0];

    private async Task<Fetched> GetAsync(Uri address, string? etag, CancellationToken cancellationToken)
    {
        using var answer = await http.GetAsync(address, etag is null ? NoHeaders : new Dictionary<string, string> { ["If-None-Match"] = etag }, cancellationToken);
        return answer.Status switch
        {
            HttpStatusCode.NotModified when etag is not null => new Fetched(null, etag),
            HttpStatusCode.OK => new Fetched(await answer.BufferAsync(options.Value.MaxIndexBytes, InMemory, copies.Folder, cancellationToken), answer.Headers.ETag?.ToString()),
            var status => throw new GalleryException($"{GuardedHttp.Display(address)} answers {(int)status}"),
        };
    }

    private async Task<Uri> FollowAsync(Uri address, CancellationToken cancellationToken)
    {
        var text = Encoding.UTF8.GetString(await http.GetBytesAsync(address, NoHeaders, MaxReference, cancellationToken)).Trim();
        // the text is a path beside it: one that begins like an address of its own would lead elsewhere
        return !text.Any(char.IsControl) && Uri.TryCreate(address, "./" + text, out var target) && target.Authority == address.Authority ? target
            : throw new GalleryException($"{GuardedHttp.Display(address)} is a reference to nothing");
    }

    private FileStream Open(string source, string path)
    {
        var real = sources.Follow(path) ?? throw new GalleryException($"{source}: there is no such file, or a link leads elsewhere");
        var limit = options.Value.MaxIndexBytes;
        var file = new FileStream(real, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        if (file.Length <= limit)
            return file;
        file.Dispose();
        throw new GalleryException($"{source} is longer than {limit} bytes");
    }
}
