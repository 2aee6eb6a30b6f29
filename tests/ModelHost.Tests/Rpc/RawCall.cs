using System.Buffers;
using System.IO.Compression;
using System.Net;
using Google.Protobuf;
using ModelHost.Rpc;

namespace ModelHost.Tests.Rpc;

/// <summary>A call as bytes and headers, for what no client of ours would send.</summary>
internal sealed class RawCall(Uri server) : IDisposable
{
    private readonly HttpMessageInvoker _http = new(new SocketsHttpHandler { UseProxy = false });

    /// <summary>A message as it goes on the stream.</summary>
    public static byte[] Frame(IMessage message)
    {
        var bytes = new ArrayBufferWriter<byte>();
        Frames.Write(bytes, message);
        return bytes.WrittenSpan.ToArray();
    }

    /// <summary>A frame with this flag, whose length is told as another where <paramref name="length"/> is given.</summary>
    public static byte[] Frame(byte flag, byte[] body, uint? length = null)
    {
        var told = length ?? (uint)body.Length;
        return [flag, (byte)(told >> 24), (byte)(told >> 16), (byte)(told >> 8), (byte)told, .. body];
    }

    /// <summary>What gzip makes of something.</summary>
    public static byte[] Zip(byte[] bytes)
    {
        using var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest, leaveOpen: true))
            gzip.Write(bytes);
        return packed.ToArray();
    }

    /// <summary>Posts a body and reads the answer to its end.</summary>
    public async Task<RawAnswer> SendAsync(string path, byte[] body, params (string Name, string Value)[] headers)
    {
        var content = new ByteArrayContent(body);
        content.Headers.TryAddWithoutValidation("Content-Type", headers.FirstOrDefault(h => h.Name == "content-type").Value ?? "application/grpc");
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(server, path))
        {
            Version = HttpVersion.Version20,
            VersionPolicy = HttpVersionPolicy.RequestVersionExact,
            Content = content,
        };
        foreach (var (name, value) in headers.Where(h => h.Name != "content-type"))
            request.Headers.TryAddWithoutValidation(name, value).ShouldBeTrue();
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        limit.CancelAfter(TimeSpan.FromSeconds(60));
        using var response = await _http.SendAsync(request, limit.Token);
        var bytes = await response.Content.ReadAsByteArrayAsync(limit.Token);
        string? Read(string name) =>
            response.TrailingHeaders.TryGetValues(name, out var trailers) ? trailers.First() : response.Headers.TryGetValues(name, out var values) ? values.First() : null;
        return new RawAnswer(response.StatusCode, Read("grpc-status"), Read("grpc-message"), bytes, [.. response.Headers.Select(h => h.Key)]);
    }

    public void Dispose() => _http.Dispose();
}

/// <summary>An answer as it came.</summary>
internal sealed record RawAnswer(HttpStatusCode Http, string? Status, string? Message, byte[] Body, string[] Headers);
