using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using ModelHost.Common;
using ModelHost.Core;
using ModelHost.Core.Galleries;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Gateway;
using ModelHost.Hosting;
using static ModelHost.Features.Galleries.GalleryJson;

namespace ModelHost.Features.Galleries;

/// <summary>Takes requests for models, and lists them.</summary>
internal sealed class ModelService(
    JobBook jobs, ModelBook models, EntryFinder finder, GalleryBook book, GalleryReader reader, NodeRegistry nodes, NodeService nodeList, EnvironmentVault vault, RouteSource routes, DataFolder folder)
{
    private const int MaxText = 4096, MaxShown = 255, MaxRequest = 1024 * 1024;
    private static readonly TimeSpan FilterPatience = TimeSpan.FromSeconds(1);

    /// <summary>Checks what needs no gallery, and stores the job.</summary>
    public async Task<Result<JobEntry>> ApplyAsync(ModelApply request, CancellationToken cancellationToken)
    {
        if ((Check(request) ?? finder.Fault(request)) is { } fault)
            return fault;
        var names = await nodeList.NamesAsync(cancellationToken);
        var known = nodes.All.Where(node => names.ContainsKey(node.Id)).ToDictionary(node => node.Id, node => names[node.Id]);
        if (!NodeTargets.FindOrOnly(known, NodeTargets.Words(request.Nodes)).TryGet(out var targets, out fault))
            return fault;
        var variables = (request.Deploy?.EnvVars ?? []).GroupBy(variable => variable.Key!).ToDictionary(same => same.Key, same => same.Last().Value!);
        var stored = request with { Nodes = null, Deploy = request.Deploy is null ? null : request.Deploy with { EnvVars = null } };
        var json = GalleryJson.Write(new ModelInstall(stored, targets, vault.Seal(variables)));
        if (json.Length > MaxRequest)
            return Failure.Invalid("", $"the request is longer than {MaxRequest} characters");
        var element = First(request.Id, request.Name, request.Url, request.ConfigUrl) ?? "config_file";
        return await jobs.AddAsync(new JobRequest(ModelInstallHandler.JobKind, Subject(First(request.Name) ?? Bare(element)), element[..Math.Min(element.Length, MaxShown)], json), cancellationToken);
    }

    /// <summary>Stores the job that deletes a model.</summary>
    public Task<Result<JobEntry>> DeleteAsync(string name, CancellationToken cancellationToken) => name.Length > MaxShown || name.Any(char.IsControl)
        ? Task.FromResult<Result<JobEntry>>(Failure.Invalid("name", $"is longer than {MaxShown} characters, or holds control characters"))
        : jobs.AddAsync(new JobRequest(ModelDeleteHandler.JobKind, Subject(name), name, name, IsDeletion: true), cancellationToken);

    /// <summary>What can be installed, of all galleries that can be read.</summary>
    public async Task<IReadOnlyList<AvailableModel>> AvailableAsync(CancellationToken cancellationToken)
    {
        var contents = await reader.ReadAsync(await book.ListAsync(GalleryKind.Models, cancellationToken), cancellationToken);
        var installed = (await models.ListAsync(cancellationToken)).ToDictionary(model => model.NameKey);
        bool IsInstalled(GalleryRead gallery, GalleryEntry entry) => installed.Values.Any(model => model.EntryName == entry.Name && model.Gallery == gallery.Name)
            || installed.ContainsKey(ModelBook.Key(GalleryNames.ToInstalled(entry.Name)));
        return [.. contents.SelectMany(content => content.Entries.Select(entry => Show(content.Gallery, entry, IsInstalled(content.Gallery, entry))))];
    }

    /// <summary>Models that are served or installed, and files that lie in the models folder.</summary>
    public async Task<Result<ModelList>> ListAsync(string? filter, LooseFilePolicy policy, CancellationToken cancellationToken)
    {
        Regex? wanted = null;
        try
        {
            wanted = string.IsNullOrEmpty(filter) ? null : new Regex(filter, RegexOptions.NonBacktracking, FilterPatience);
        }
        catch (Exception e) when (e is ArgumentException or NotSupportedException)
        {
            return new Failure(FailureKind.Conflict, "gallery.filter", "filter is no regular expression, or one that looks around or back");
        }
        var installed = (await models.ListAsync(cancellationToken)).Select(model => new ConfiguredModel(model.Name,
            GalleryJson.Read<GalleryFile[]>(model.Files) is [var only] ? only.Filename : "")).ToList();
        var configured = installed.Concat(routes.Current.Names.Where(name => !installed.Exists(model => model.Name == name)).Select(name => new ConfiguredModel(name, "")));
        var files = Directory.EnumerateFiles(folder.File("models")).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal);
        return new ModelList([.. LooseFiles.List(configured, files, policy, name => wanted?.IsMatch(name) ?? true).Select(name => new ListedModel(name))]);
    }

    private static AvailableModel Show(GalleryRead gallery, GalleryEntry entry, bool isInstalled)
    {
        var backend = ModelBackend(entry);
        return new AvailableModel
        {
            Url = Said(entry.Url),
            Name = entry.Name,
            Description = Said(entry.Description),
            License = Said(entry.License),
            Urls = Any(entry.Urls),
            Icon = Said(entry.Icon),
            Tags = Any(entry.Tags),
            Files = Any([.. entry.Files.Select(file => new AvailableFile(file.Filename, file.Sha256, file.Uri))]),
            Size = Said(entry.Size),
            Gallery = gallery,
            Installed = isInstalled,
            Backend = Said(backend),
        };
    }

    private static string ModelBackend(GalleryEntry entry) =>
        new[] { entry.Overrides, entry.ConfigFile }.Select(config => config?["backend"]?.ToString()).FirstOrDefault(name => name is { Length: > 0 }) ?? "";

    private static Failure? Check(ModelApply request)
    {
        if ((DeploymentRules.Unknown(request) ?? Problems.Check(request)) is { } fault)
            return fault;
        if (request.Deploy is { } deploy && (DeploymentRules.Unknown(deploy) ?? Problems.Check(deploy) ?? Variables(deploy)) is { } wrong)
            return wrong with { Field = wrong.Field is { Length: > 0 } field ? $"deploy.{field}" : "deploy" };
        if (request.Name is { Length: > 0 } name && GalleryNames.NameFault(name) is { } bad)
            return Failure.Invalid("name", bad);
        foreach (var (field, text) in (ReadOnlySpan<(string, string?)>)[("id", request.Id), ("url", request.Url), ("config_url", request.ConfigUrl)])
        {
            if (text is not null && (text.Length > MaxText || text.Any(char.IsControl)))
                return Failure.Invalid(field, $"is longer than {MaxText} characters, or holds control characters");
        }
        foreach (var (field, element) in (ReadOnlySpan<(string, JsonElement?)>)[("config_file", request.ConfigFile), ("overrides", request.Overrides)])
        {
            if (element is { ValueKind: not (JsonValueKind.Object or JsonValueKind.Null) })
                return Failure.Invalid(field, "is no object");
        }
        if (request.Files?.Any(file => file is null || string.IsNullOrEmpty(file.Uri)) == true)
            return Failure.Invalid("files", "holds a file without uri");
        return First(request.Id, request.Url, request.ConfigUrl) is null && request.ConfigFile is not { ValueKind: JsonValueKind.Object } && request.Overrides is not { ValueKind: JsonValueKind.Object } && request.Files is not { Count: > 0 }
            ? Failure.Invalid("id", "is required, or a url, or a config_file") : null;
    }

    private static Failure? Variables(ModelDeploy deploy) =>
        deploy.EnvVars?.Any(variable => variable?.Key is null || variable.Value is null or EnvironmentVariable.Mask) == true ? Failure.Invalid("env_vars", "holds a variable without key or value, or a masked one") : null;

    private static string? First(params ReadOnlySpan<string?> texts)
    {
        foreach (var text in texts)
        {
            if (!string.IsNullOrWhiteSpace(text))
                return text;
        }
        return null;
    }

    private static string Bare(string id) => id.IndexOf('@', StringComparison.Ordinal) is > 0 and var at && GalleryBook.Name().IsMatch(id[..at]) ? id[(at + 1)..] : id;

    private static string Subject(string name) =>
        "model:" + (ModelBook.Key(GalleryNames.ToInstalled(name)) is { Length: <= 200 } key ? key : Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(name))));
}
