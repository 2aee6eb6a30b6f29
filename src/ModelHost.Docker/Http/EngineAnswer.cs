using System.Buffers;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using ModelHost.Docker.Streams;
using ModelHost.Docker.Wire;

namespace ModelHost.Docker.Http;

/// <summary>An answer whose head has arrived. Everything read from it has a bound. Disposing of it before its end closes the connection.</summary>
internal sealed class EngineAnswer(string call, HttpResponseMessage response, Stream body, Action lost) : IDisposable
{
    private const int MaxJsonBytes = 16 << 20;
    private const int MaxErrorBytes = 64 << 10;

    public HttpStatusCode StatusCode => response.StatusCode;

    public string? ContentType => response.Content.Headers.ContentType?.MediaType;

    public string? Header(string name) => response.Headers.TryGetValues(name, out var values) ? string.Join(", ", values) : null;

    /// <summary>Bytes as they come; 0 at the end.</summary>
    /// <exception cref="DockerException">The engine broke off.</exception>
    public async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        try
        {
            return await body.ReadAsync(buffer, cancellationToken);
        }
        catch (Exception e) when (EngineConnection.IsTransportFailure(e))
        {
            cancellationToken.ThrowIfCancellationRequested();
            lost();
            throw new DockerException(call, null, $"the engine broke off its answer: {e.Message}", e);
        }
    }

    /// <exception cref="DockerException">Not JSON of that shape, or more than 16 MiB.</exception>
    public async Task<T> ReadJsonAsync<T>(JsonTypeInfo<T> type, CancellationToken cancellationToken)
    {
        var bytes = new ArrayBufferWriter<byte>(4096);
        int read;
        while ((read = await ReadAsync(bytes.GetMemory(4096), cancellationToken)) > 0)
        {
            bytes.Advance(read);
            if (bytes.WrittenCount > MaxJsonBytes)
                throw Unusable($"the answer is larger than {MaxJsonBytes} bytes");
        }
        return Parse(bytes.WrittenSpan, type);
    }

    /// <summary>A stream of JSON objects, one a line or one right after the other; each is handed out as soon as it is whole.</summary>
    /// <exception cref="DockerException">Not JSON of that shape, or an object of more than 1 MiB.</exception>
    public async IAsyncEnumerable<T> ReadJsonObjectsAsync<T>(JsonTypeInfo<T> type, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var splitter = new JsonObjectSplitter();
        var buffer = new byte[16 << 10];
        int read;
        while ((read = await ReadAsync(buffer, cancellationToken)) > 0)
        {
            var start = 0;
            while (start < read)
            {
                start += splitter.Feed(buffer.AsSpan(start, read - start), out var whole);
                if (splitter.Failure is { } why)
                    throw Unusable(why);
                if (whole)
                    yield return Parse(splitter.Take(), type);
            }
        }
        if (splitter.IsWithinObject)
            throw Unusable("the answer ended within an object");
    }

    /// <summary>The refusal that this answer is. What goes wrong while reading it is left out: the status is the news.</summary>
    public async Task<DockerException> ReadRefusalAsync(CancellationToken cancellationToken)
    {
        var bytes = new byte[MaxErrorBytes];
        var length = 0;
        try
        {
            int read;
            while (length < bytes.Length && (read = await ReadAsync(bytes.AsMemory(length), cancellationToken)) > 0)
                length += read;
        }
        catch (DockerException)
        {
        }
        return new DockerException(call, StatusCode, Message(bytes.AsSpan(0, length)));
    }

    /// <summary>The failure of an answer that arrived but is not what the API promises.</summary>
    public DockerException Unusable(string why, Exception? inner = null) => new(call, StatusCode, why, inner);

    public void Dispose() => response.Dispose();

    private string Message(ReadOnlySpan<byte> bytes)
    {
        try
        {
            if (JsonSerializer.Deserialize(bytes, DockerJson.Default.ErrorAnswer)?.Message is { Length: > 0 } message)
                return message;
        }
        catch (JsonException)
        {
            // a proxy's page, or cut off: the text itself has to do
        }
        var text = Encoding.UTF8.GetString(bytes).Trim();
        return text.Length > 0 ? text : response.ReasonPhrase ?? "no reason given";
    }

    private T Parse<T>(ReadOnlySpan<byte> bytes, JsonTypeInfo<T> type)
    {
        try
        {
            return JsonSerializer.Deserialize(bytes, type) ?? throw Unusable("the answer is null");
        }
        catch (JsonException e)
        {
            throw Unusable($"the answer cannot be read: {e.Message}", e);
        }
    }
}
