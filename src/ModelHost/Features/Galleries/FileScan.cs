using System.Text.Json;
using Microsoft.Extensions.Options;
using ModelHost.Agent.Downloads;
using ModelHost.Core;
using ModelHost.Core.Artifacts;
using ModelHost.Core.Deployments;
using ModelHost.Core.Galleries;

namespace ModelHost.Features.Galleries;

/// <summary>Asks Hugging Face whether files are known to be unsafe, before they are downloaded.</summary>
internal sealed partial class FileScan(GuardedHttp http, IOptions<DownloadOptions> downloads, IOptions<GalleryOptions> options, TimeProvider time, ILogger<FileScan> logger)
{
    private const int MaxAnswer = 4 * 1024 * 1024;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(15);
    private static readonly Dictionary<string, string> NoHeaders = [];

    /// <summary>Checks the files of a model, or the repository that its engine loads.</summary>
    public async Task<Failure?> CheckAsync(ComposedModel model, CancellationToken cancellationToken)
    {
        var files = model.Files.Select(file => ArtifactUri.Parse(file.Uri).Match(uri => uri as ArtifactUri.HuggingFace, _ => null)).OfType<ArtifactUri.HuggingFace>().ToList();
        if (model.Files.Count == 0 && model.Model.Contains('/', StringComparison.Ordinal) && ModelSource.Fault(model.Model) is null && !ModelSource.IsPath(model.Model))
            files.Add(new ArtifactUri.HuggingFace(model.Model, "", "main"));
        foreach (var repository in files.GroupBy(file => file.Repository))
        {
            if (await CheckAsync(repository.Key, [.. repository.Select(file => file.Path)], cancellationToken) is { } failure)
                return failure;
        }
        return null;
    }

    private async Task<Failure?> CheckAsync(string repository, string[] paths, CancellationToken cancellationToken)
    {
        using var limit = new CancellationTokenSource(Patience, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, cancellationToken);
        try
        {
            var answer = await http.GetBytesAsync(new Uri($"{downloads.Value.HuggingFaceUrl.TrimEnd('/')}/api/models/{repository}/scan"), NoHeaders, MaxAnswer, linked.Token);
            using var scan = JsonDocument.Parse(answer);
            return Judge(scan.RootElement, repository, paths);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested && e is DownloadException or OperationCanceledException or JsonException)
        {
            LogUnknown(repository, e.Message);
            return !options.Value.EnforceScan ? null
                : new Failure(FailureKind.Unavailable, "scan.unknown", $"whether the files of {repository} are safe is not known, and must be (Galleries:EnforceScan): {e.Message}");
        }
    }

    private static Failure? Judge(JsonElement scan, string repository, string[] paths)
    {
        if (scan.ValueKind != JsonValueKind.Object)
            throw new JsonException("the answer is no object");
        string[] listed = [.. Texts(scan, "dangerousPickles"), .. Texts(scan, "clamAVInfectedFiles")];
        var unsafeFiles = paths.Contains("") ? listed : [.. listed.Intersect(paths)];
        // what is unsafe and not named may be anything
        return unsafeFiles.Length > 0 || (listed.Length == 0 && scan.TryGetProperty("hasUnsafeFile", out var any) && any.ValueKind == JsonValueKind.True)
            ? new Failure(FailureKind.Conflict, "scan.unsafe", $"Hugging Face says that {repository} has unsafe files{(unsafeFiles.Length > 0 ? ": " + string.Join(", ", unsafeFiles.Take(5)) : "")}")
            : null;
    }

    private static IEnumerable<string> Texts(JsonElement scan, string name) =>
        scan.TryGetProperty(name, out var list) && list.ValueKind == JsonValueKind.Array ? list.EnumerateArray().Where(item => item.ValueKind == JsonValueKind.String).Select(item => item.GetString()!) : [];

    [LoggerMessage(3021, LogLevel.Warning, "Hugging Face could not be asked whether the files of {Repository} are safe: {Reason}")]
    private partial void LogUnknown(string repository, string reason);
}
