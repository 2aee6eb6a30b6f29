using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace ModelHost.Docker.Http;

/// <summary>One call as the API's pages write it: method, path without version, query and body.</summary>
internal sealed class EngineCall(HttpMethod method, string path)
{
    private readonly StringBuilder _query = new();
    private readonly List<(string Name, string Value)> _headers = [];
    private Func<HttpContent>? _content;
    private bool _isVersioned;

    /// <summary>How errors name the call: without query and headers, which may carry secrets.</summary>
    public string Name => $"{method} {path}";

    /// <summary>Whether it can be sent twice: not when its body is a stream.</summary>
    public bool Repeatable { get; private set; } = true;

    public static EngineCall Get(string path) => new(HttpMethod.Get, path);

    public static EngineCall Post(string path) => new(HttpMethod.Post, path);

    /// <summary>A call of Podman's own API, in the version that every Podman from 4 on speaks.</summary>
    public static EngineCall PostLibpod(string path) => new(HttpMethod.Post, $"/v4.0.0/libpod{path}") { _isVersioned = true };

    public static EngineCall Delete(string path) => new(HttpMethod.Delete, path);

    public EngineCall With(string name, string value)
    {
        _query.Append(_query.Length == 0 ? '?' : '&').Append(name).Append('=').Append(Uri.EscapeDataString(value));
        return this;
    }

    public EngineCall WithHeader(string name, string value)
    {
        _headers.Add((name, value));
        return this;
    }

    public EngineCall WithJson<T>(T body, JsonTypeInfo<T> type)
    {
        var bytes = JsonSerializer.SerializeToUtf8Bytes(body, type);
        _content = () => new ByteArrayContent(bytes) { Headers = { ContentType = new MediaTypeHeaderValue("application/json") } };
        return this;
    }

    public EngineCall WithTar(Stream tar)
    {
        _content = () => new StreamContent(tar) { Headers = { ContentType = new MediaTypeHeaderValue("application/x-tar") } };
        Repeatable = false;
        return this;
    }

    /// <summary>The message to send. It is not to be disposed of: with a stream for a body, that would close the caller's stream.</summary>
    public HttpRequestMessage ToRequest(Uri engine, string? version)
    {
        var prefix = version is null || _isVersioned ? "" : $"/v{version}";
        var request = new HttpRequestMessage(method, new Uri(engine, $"{prefix}{path}{_query}")) { Content = _content?.Invoke(), Version = HttpVersion.Version11 };
        foreach (var (name, value) in _headers)
            request.Headers.TryAddWithoutValidation(name, value);
        return request;
    }
}
