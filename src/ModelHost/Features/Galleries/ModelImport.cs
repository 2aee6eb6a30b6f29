using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Options;
using ModelHost.Core.Galleries;

namespace ModelHost.Features.Galleries;

/// <summary>Asks at start for the models that the configuration names. What is installed or under way already is not asked for again.</summary>
internal sealed partial class ModelImport(ModelService service, ModelBook models, JobBook jobs, IOptions<GalleryOptions> options, ILogger<ModelImport> logger) : BackgroundService
{
    private const int MaxBytes = 16 * 1024 * 1024;

    /// <summary>Reads a list of requests.</summary>
    /// <exception cref="GalleryFormatException">It is none.</exception>
    public static IReadOnlyList<ModelApply> Read(TextReader text)
    {
        var items = GalleryIndex.ParseItems(text);
        try
        {
            return [.. items.Select(item => item.Deserialize<ModelApply>(GalleryJson.Options)!)];
        }
        catch (JsonException e)
        {
            throw new GalleryFormatException($"{(e.Path is { Length: > 2 } path ? path[2..] : "an item")} has the wrong type", e);
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        foreach (var (source, isFile) in ((string, bool)[])[(options.Value.Import, true), (options.Value.ImportJson, false)])
        {
            if (source.Length > 0)
                await ImportAsync(source, isFile, stoppingToken);
        }
    }

    private async Task ImportAsync(string source, bool isFile, CancellationToken cancellationToken)
    {
        var from = isFile ? source : "Galleries:ImportJson";
        try
        {
            if (isFile && new FileInfo(source).Length > MaxBytes)
                throw new GalleryFormatException($"it is longer than {MaxBytes} bytes");
            // JSON is YAML, too
            foreach (var request in Read(new StringReader(isFile ? await File.ReadAllTextAsync(source, Encoding.UTF8, cancellationToken) : source)))
                await ImportAsync(request, from, cancellationToken);
        }
        catch (Exception e) when (e is GalleryFormatException or IOException or UnauthorizedAccessException)
        {
            LogUnread(from, e.Message);
        }
    }

    private async Task ImportAsync(ModelApply request, string from, CancellationToken cancellationToken)
    {
        var known = Stored(request);
        if ((await models.ListAsync(cancellationToken)).Any(model => model.Request == known) || jobs.All.Any(job => !job.Status.Processed && job.Request.Contains(known, StringComparison.Ordinal)))
            return;
        if ((await service.ApplyAsync(request, cancellationToken)).Failure is { } failure)
            LogRefused(from, request.Id ?? request.Name ?? request.Url ?? "", failure.Field is { Length: > 0 } field ? $"{field}: {failure.Detail}" : failure.Detail);
    }

    private static string Stored(ModelApply request) =>
        GalleryJson.Write(request with { Nodes = null, Deploy = request.Deploy is null ? null : request.Deploy with { EnvVars = null } });

    [LoggerMessage(3041, LogLevel.Error, "The models of {Source} cannot be read: {Reason}")]
    private partial void LogUnread(string source, string reason);

    [LoggerMessage(3042, LogLevel.Error, "A model of {Source} cannot be installed ({Model}): {Reason}")]
    private partial void LogRefused(string source, string model, string reason);
}
