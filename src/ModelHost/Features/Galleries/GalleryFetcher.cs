using System.Net;
using System.Net.Http.Headers;
using System.Text;
using Microsoft.Extensions.Options;
using ModelHost.Agent.Downloads;

namespace ModelHost.Features.Galleries;

/// <summary>What a source answered.</summary>
/// <param name="Content">The bytes; null: they are as they were.</param>
/// <param name="ETag">What it calls this version; null: nothing.</param>
internal sealed record Fetched(byte[]? Content, string? ETag);

/// <summary>Fetches indexes, configurations and small answers, in bounded time and size, and never from a network of somebody's own unless that is allowed.</summary>
internal sealed class GalleryFetcher : IDisposable
{
    private const string ReferenceExtension = ".ref";
    private const int MaxReference = 2048;
    private readonly GallerySources _sources;
    private readonly GalleryOptions _options;
    private readonly TimeProvider _time;
    private readonly HttpClient _http;

    public GalleryFetcher(GallerySources sources, IOptions<GalleryOptions> options, TimeProvider time)
    {
        (_sources, _options, _time) = (sources, options.Value, time);
        var handler = GuardedHttp.MakeHandler(() => _options.AllowPrivateNetworks);
        handler.AutomaticDecompression = DecompressionMethods.All;
        _http = new HttpClient(handler) { Timeout = Timeout.InfiniteTimeSpan };
        _http.DefaultRequestHeaders.UserAgent.ParseAdd("modelhost");
    }

    /// <summary>Fetches an index or a configuration. The address of a reference (<c>.ref</c>) leads to another beside it.</summary>
    /// <param name="source">How people call it.</param>
    /// <param name="place">Where it is.</param>
    /// <param name="etag">The version that is known already; null: none is.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="GalleryException">It is not to be had.</exception>
    public async Task<Fetched> FetchAsync(string source, SourcePlace place, string? etag, CancellationToken cancellationToken)
    {
        using var limit = new CancellationTokenSource(_options.Timeout, _time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
        try
        {
            if (place.BuiltIn is { } name)
                return new Fetched(BuiltInGallery.Read(name), null);
            if (place.File is { } path)
                return new Fetched(await ReadAsync(path, linked.Token), null);
            var address = place.Address!;
            if (address.AbsolutePath.EndsWith(ReferenceExtension, StringComparison.OrdinalIgnoreCase))
                address = await FollowAsync(address, linked.Token);
            return await GetAsync(address, etag, _options.MaxIndexBytes, linked.Token);
        }
        catch (OperationCanceledException) when (limit.IsCancellationRequested && !cancellationToken.IsCancellationRequested)
        {
            throw new GalleryException($"{source} did not answer in {_options.Timeout.TotalSeconds:0.#} s");
        }
        catch (Exception e) when (e is HttpRequestException or IOException or UnauthorizedAccessException or InvalidDataException)
        {
            throw new GalleryException($"{source}: {Innermost(e)}", e);
        }
    }

    /// <summary>Reads an address.</summary>
    /// <exception cref="HttpRequestException">It answers otherwise than with success, or not at all.</exception>
    /// <exception cref="InvalidDataException">It is larger.</exception>
    public async Task<Fetched> GetAsync(Uri address, string? etag, int maxBytes, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, address);
        if (etag is not null && EntityTagHeaderValue.TryParse(etag, out var known))
            request.Headers.IfNoneMatch.Add(known);
        using var answer = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
        if (answer.StatusCode == HttpStatusCode.NotModified && etag is not null)
            return new Fetched(null, etag);
        if (!answer.IsSuccessStatusCode)
            throw new HttpRequestException($"it answers {(int)answer.StatusCode}", null, answer.StatusCode);
        if (answer.Content.Headers.ContentLength > maxBytes)
            throw TooLarge(maxBytes);
        await using var body = await answer.Content.ReadAsStreamAsync(cancellationToken);
        var content = await ReadAsync(body, maxBytes, cancellationToken);
        if (answer.Content.Headers.ContentLength is { } promised && promised != content.Length)
            throw new InvalidDataException("it ends in the middle");
        return new Fetched(content, answer.Headers.ETag?.ToString());
    }

    public void Dispose() => _http.Dispose();

    private async Task<Uri> FollowAsync(Uri address, CancellationToken cancellationToken)
    {
        var text = Encoding.UTF8.GetString((await GetAsync(address, null, MaxReference, cancellationToken)).Content!).Trim();
        // the text is a path beside it: one that begins like an address of its own would lead elsewhere
        return Uri.TryCreate(address, "./" + text, out var target) && target.Host == address.Host && !text.Any(char.IsControl) ? target
            : throw new InvalidDataException("it is a reference to nothing");
    }

    private async Task<byte[]> ReadAsync(string path, CancellationToken cancellationToken)
    {
        var real = _sources.Follow(path) ?? throw new FileNotFoundException("there is no such file in the folders of the data folder");
        await using var file = new FileStream(real, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        return await ReadAsync(file, _options.MaxIndexBytes, cancellationToken);
    }

    private static async Task<byte[]> ReadAsync(Stream stream, int maxBytes, CancellationToken cancellationToken)
    {
        using var content = new MemoryStream();
        var buffer = new byte[64 * 1024];
        while (await stream.ReadAsync(buffer, cancellationToken) is > 0 and var read)
        {
            if (content.Length + read > maxBytes)
                throw TooLarge(maxBytes);
            content.Write(buffer, 0, read);
        }
        return content.ToArray();
    }

    private static InvalidDataException TooLarge(int maxBytes) => new($"it is larger than {maxBytes} bytes (Galleries:MaxIndexBytes)");

    private static string Innermost(Exception e) => e is PrivateAddressException || e.InnerException is null ? e.Message : e.GetBaseException().Message;
}
