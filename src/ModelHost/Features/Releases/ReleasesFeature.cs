using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using ModelHost.Access;
using ModelHost.Agent.Downloads;
using ModelHost.Common;
using ModelHost.Core.Engines;

namespace ModelHost.Features.Releases;

/// <summary>Where the newest engine release is looked up. Section <c>Releases</c>.</summary>
public sealed class ReleaseOptions
{
    /// <summary>Name of the configuration section.</summary>
    public const string Section = "Releases";

    /// <summary>
    /// Answers with a JSON object whose <c>tag_name</c> is the newest release, as GitHub's API does. Empty: nothing is asked, and a blank
    /// version means the newest image on the node.
    /// </summary>
    public string Url { get; set; } = "https://api.github.com/repos/vllm-project/vllm/releases/latest";

    /// <summary>How long a request waits for the answer. Default 3 s, 100 ms to 30 s.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:00:30")]
    public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(3);
}

/// <summary>The newest release of the engine.</summary>
internal static class ReleasesFeature
{
    /// <summary>Adds the service.</summary>
    public static IServiceCollection AddReleases(this IServiceCollection services)
    {
        services.AddCheckedOptions<ReleaseOptions>(ReleaseOptions.Section);
        return services.AddSingleton<ReleaseService>();
    }

    /// <summary>Maps <c>/vllm-version</c>.</summary>
    public static void MapReleases(this IEndpointRouteBuilder routes, string name) =>
        routes.MapGet("/vllm-version", LatestAsync).WithName(name).WithTags("Health").AdminOnly()
            .WithSummary("The latest stable vLLM release, cached for an hour; empty when it is not known.");

    private static async Task<Ok<EngineRelease>> LatestAsync(ReleaseService releases, CancellationToken cancellationToken) =>
        TypedResults.Ok(new EngineRelease(await releases.LatestAsync(cancellationToken)));
}

/// <summary>A release of the engine.</summary>
/// <param name="Version">Without a leading <c>v</c>; empty: not known.</param>
internal sealed record EngineRelease(string Version);

/// <summary>Looks the newest release up, seldom and never for long.</summary>
internal sealed partial class ReleaseService : IDisposable
{
    private const int MaxAnswer = 1024 * 1024;
    private static readonly TimeSpan Fresh = TimeSpan.FromHours(1);
    private static readonly TimeSpan AfterFailure = TimeSpan.FromMinutes(5);

    private readonly ReleaseOptions _options;
    private readonly TimeProvider _time;
    private readonly ILogger<ReleaseService> _logger;
    private readonly HttpClient _http;
    private readonly SemaphoreSlim _one = new(1);
    private string _version = "";
    private DateTimeOffset _until = DateTimeOffset.MinValue;

    public ReleaseService(IOptions<ReleaseOptions> options, IOptions<DownloadOptions> downloads, TimeProvider time, ILogger<ReleaseService> logger)
    {
        (_options, _time, _logger) = (options.Value, time, logger);
        var proxy = DownloadProxy.Of(downloads.Value);
        _http = new HttpClient(new SocketsHttpHandler { ConnectTimeout = _options.Timeout, UseProxy = proxy is not null, Proxy = proxy }) { Timeout = _options.Timeout, MaxResponseContentBufferSize = MaxAnswer };
        _http.DefaultRequestHeaders.UserAgent.ParseAdd("modelhost");
    }

    /// <summary>The newest release, or the last one known, or nothing; a failure is not asked again for five minutes.</summary>
    public async Task<string> LatestAsync(CancellationToken cancellationToken)
    {
        if (_options.Url.Length == 0 || _time.GetUtcNow() < _until)
            return _version;
        await _one.WaitAsync(cancellationToken);
        try
        {
            if (_time.GetUtcNow() < _until)
                return _version;
            var found = await AskAsync(cancellationToken);
            _until = _time.GetUtcNow() + (found is null ? AfterFailure : Fresh);
            return _version = found ?? _version;
        }
        finally
        {
            _one.Release();
        }
    }

    public void Dispose()
    {
        _http.Dispose();
        _one.Dispose();
    }

    private async Task<string?> AskAsync(CancellationToken cancellationToken)
    {
        try
        {
            using var answer = JsonDocument.Parse(await _http.GetByteArrayAsync(new Uri(_options.Url), cancellationToken));
            return answer.RootElement.ValueKind == JsonValueKind.Object
                && answer.RootElement.TryGetProperty("tag_name", out var tag) && tag.ValueKind == JsonValueKind.String
                && EngineImage.IsValidVersion(tag.GetString()!) ? EngineImage.VersionOf(tag.GetString()!) : null;
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested && e is HttpRequestException or OperationCanceledException or JsonException or UriFormatException)
        {
            LogUnknown(e.Message);
            return null;
        }
    }

    [LoggerMessage(1101, LogLevel.Warning, "The latest vLLM release is not known: {Reason}")]
    private partial void LogUnknown(string reason);
}
