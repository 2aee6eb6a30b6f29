using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Core.Galleries;

namespace ModelHost.Features.Galleries;

/// <summary>
/// Asks at start for the models that the configuration names. What is installed or under way already is not asked for again; what is for a node that is not there yet
/// is asked for when it is.
/// </summary>
internal sealed partial class ModelImport(
    ModelService service, ModelBook models, JobBook jobs, IOptions<GalleryOptions> options, TimeProvider time, ILogger<ModelImport> logger) : BackgroundService
{
    private const int MaxBytes = 16 * 1024 * 1024;
    private static readonly TimeSpan NodeWait = TimeSpan.FromSeconds(5);

    /// <summary>Reads a list of requests.</summary>
    /// <exception cref="GalleryFormatException">It is none.</exception>
    public static IReadOnlyList<Item> Read(TextReader text, string from) => [.. GalleryIndex.ParseItems(text).Select((item, index) =>
    {
        try
        {
            return new Item(from, index + 1, item?.Deserialize<ModelApply>(GalleryJson.Options), "is no mapping");
        }
        catch (JsonException e)
        {
            return new Item(from, index + 1, null, $"{(e.Path is { Length: > 2 } path ? path[2..] : "it")} has the wrong type");
        }
    })];

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var waiting = new List<Item>();
        foreach (var (source, isFile) in ((string, bool)[])[(options.Value.Import, true), (options.Value.ImportJson, false)])
        {
            foreach (var item in source.Length > 0 ? await ReadAsync(source, isFile, stoppingToken) : [])
            {
                if (await TryAsync(item, stoppingToken) is { } failure && MayCome(item, failure))
                    waiting.Add(item);
            }
        }
        while (waiting.Count > 0)
        {
            await Task.Delay(NodeWait, time, stoppingToken);
            foreach (var item in waiting.ToArray())
            {
                if (await TryAsync(item, stoppingToken) is not { } failure || (!IsForLater(failure) && !MayCome(item, failure)))
                    waiting.Remove(item);
            }
        }
    }

    private async Task<IReadOnlyList<Item>> ReadAsync(string source, bool isFile, CancellationToken cancellationToken)
    {
        var from = isFile ? source : "Galleries:ImportJson";
        try
        {
            if (isFile && new FileInfo(source) is { Exists: true, Length: > MaxBytes })
                throw new GalleryFormatException($"it is longer than {MaxBytes} bytes");
            // JSON is YAML, too
            return Read(new StringReader(isFile ? await File.ReadAllTextAsync(source, Encoding.UTF8, cancellationToken) : source), from);
        }
        catch (Exception e) when (e is GalleryFormatException or IOException or UnauthorizedAccessException)
        {
            LogUnread(from, e.Message);
            return [];
        }
    }

    private async Task<Failure?> TryAsync(Item item, CancellationToken cancellationToken)
    {
        if (item.Request is not { } request)
            return new Failure(FailureKind.Invalid, "import.item", item.Fault);
        var known = Stored(request);
        try
        {
            if ((await models.ListAsync(cancellationToken)).Any(model => model.Request == known) || jobs.All.Any(job => !job.Status.Processed && job.Request.Contains(known, StringComparison.Ordinal)))
                return null;
            return (await service.ApplyAsync(request, cancellationToken)).Failure;
        }
#pragma warning disable CA1031 // the database does not take it: that must end neither the other items nor the control plane
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
#pragma warning restore CA1031
        {
            LogBroken(e, item.Number, item.From);
            return new Failure(FailureKind.Unavailable, "import.broken", e.Message);
        }
    }

    /// <summary>Says why an item cannot be installed now, and whether it is asked for again.</summary>
    private bool MayCome(Item item, Failure failure)
    {
        var (detail, name) = (failure.Field is { Length: > 0 } field ? $"{field}: {failure.Detail}" : failure.Detail, item.Request?.Id ?? item.Request?.Name ?? item.Request?.Url ?? "it has no name");
        if (IsForLater(failure))
            LogWaits(item.From, item.Number, name, detail);
        else
            LogRefused(item.From, item.Number, name, detail);
        return IsForLater(failure);
    }

    private static bool IsForLater(Failure failure) => failure is { Kind: FailureKind.Unavailable } or { Kind: FailureKind.Invalid, Field: "nodes" };

    private static string Stored(ModelApply request) =>
        GalleryJson.Write(request with { Nodes = null, Deploy = request.Deploy is null ? null : request.Deploy with { EnvVars = null } });

    /// <summary>An item of a list.</summary>
    /// <param name="From">The list.</param>
    /// <param name="Number">Its place there, from 1.</param>
    /// <param name="Request">The request; null: it is none.</param>
    /// <param name="Fault">Why not.</param>
    internal sealed record Item(string From, int Number, ModelApply? Request, string Fault);

    [LoggerMessage(3041, LogLevel.Error, "The models of {Source} cannot be read: {Reason}")]
    private partial void LogUnread(string source, string reason);

    [LoggerMessage(3042, LogLevel.Error, "Item {Number} of {Source} cannot be installed ({Model}): {Reason}")]
    private partial void LogRefused(string source, int number, string model, string reason);

    [LoggerMessage(3043, LogLevel.Warning, "Item {Number} of {Source} waits ({Model}): {Reason}")]
    private partial void LogWaits(string source, int number, string model, string reason);

    [LoggerMessage(3044, LogLevel.Warning, "Item {Number} of {Source} could not be asked for; it is tried again.")]
    private partial void LogBroken(Exception exception, int number, string source);
}
