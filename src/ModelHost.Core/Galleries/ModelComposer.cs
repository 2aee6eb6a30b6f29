using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Core.Artifacts;

namespace ModelHost.Core.Galleries;

/// <summary>What a model is put together from; each part adds to those before it, or has its way over them.</summary>
public sealed record ModelParts
{
    /// <summary>The name to install it as; null: the entry's, else the configuration's.</summary>
    public string? Name { get; init; }

    /// <summary>The entry of the gallery; null: it comes from none.</summary>
    public GalleryEntry? Entry { get; init; }

    /// <summary>The configuration file that was read from an address; null: there is none.</summary>
    public GalleryEntry? Fetched { get; init; }

    /// <summary>A configuration given with the request, used where neither of these has one.</summary>
    public JsonObject? ConfigFile { get; init; }

    /// <summary>What the request wants otherwise.</summary>
    public JsonObject? Overrides { get; init; }

    /// <summary>Files that the request adds.</summary>
    public IReadOnlyList<GalleryFile> Files { get; init; } = [];
}

/// <summary>A model as it is to be installed, checked.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Backend">Name of its backend.</param>
/// <param name="Config">Its configuration, under its name.</param>
/// <param name="Files">Its files; each path once.</param>
/// <param name="Templates">Texts stored beside it.</param>
public sealed record ComposedModel(string Name, string Backend, JsonObject Config, IReadOnlyList<GalleryFile> Files, IReadOnlyList<PromptTemplate> Templates)
{
    /// <summary>The model that its configuration names: a file, or an identifier on Hugging Face; empty: none.</summary>
    public string Model => ModelComposer.Text(Config["parameters"] as JsonObject, "model");
}

/// <summary>Puts models together.</summary>
public static class ModelComposer
{
    private const int MaxFiles = 1000;
    private const string DefaultBackend = "vllm", GgufBackend = "llama-cpp";

    // names that LocalAI's configurations have for the same thing
    private static readonly Dictionary<string, string> Aliases = new(StringComparer.Ordinal) { ["llama"] = GgufBackend, ["go-llama"] = GgufBackend, ["llama.cpp"] = GgufBackend };

    // fields of a configuration that name files
    private static readonly string[] FileFields = ["mmproj", "draft_model", "lora_adapter", "lora_base", "prompt_cache_path"];

    /// <summary>Puts one together and checks it. The failure names the field.</summary>
    public static Result<ComposedModel> Compose(ModelParts parts)
    {
        ArgumentNullException.ThrowIfNull(parts);
        if ((parts.Fetched?.IsEmpty ?? true) && (parts.Entry?.IsEmpty ?? true) && parts.ConfigFile is null && parts.Overrides is null && parts.Files.Count == 0)
            return Failure.Invalid("id", "there is nothing to install in it: neither a url, a config_file, overrides nor files");
        var config = (JsonObject)(parts.Fetched?.ConfigFile ?? parts.Entry?.ConfigFile ?? parts.ConfigFile ?? []).DeepClone();
        foreach (var over in (JsonObject?[])[parts.Fetched?.Overrides, parts.Entry?.Overrides, parts.Overrides])
            Merge(config, over);
        var name = parts.Name is { Length: > 0 } given ? given : GalleryNames.ToInstalled(parts.Entry?.Name is { Length: > 0 } entry ? entry
            : parts.Fetched?.Name is { Length: > 0 } fetched ? fetched : Text(config, "name"));
        if (GalleryNames.NameFault(name) is { } wrong)
            return Failure.Invalid("name", wrong);
        config["name"] = name;
        if (!Files([.. parts.Fetched?.Files ?? [], .. parts.Entry?.Files ?? [], .. Downloads(config), .. parts.Files]).TryGet(out var files, out var fault))
            return fault;
        var backend = Text(config, "backend");
        backend = backend.Length > 0 ? Aliases.GetValueOrDefault(backend, backend)
            : files.Any(file => file.Filename.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase)) ? GgufBackend : DefaultBackend;
        if (!GalleryNames.IsBackend(backend))
            return Failure.Invalid("backend", "is no name of a backend: letters, digits, _ and -");
        config["backend"] = backend;
        var composed = new ComposedModel(name, backend, config, files, parts.Fetched?.PromptTemplates ?? []);
        return PathFault(composed) is { } path ? path : composed;
    }

    /// <summary>What is wrong with files that are to be part of a model; null: nothing that their texts tell. The failure names the field.</summary>
    public static Failure? FilesFault(IEnumerable<GalleryFile> files)
    {
        ArgumentNullException.ThrowIfNull(files);
        return Files(files).Failure;
    }

    /// <summary>Merges one configuration over another: mappings field by field, everything else as a whole.</summary>
    public static void Merge(JsonObject into, JsonObject? over)
    {
        ArgumentNullException.ThrowIfNull(into);
        foreach (var (key, value) in over ?? [])
        {
            if (value is JsonObject inner && into[key] is JsonObject known)
                Merge(known, inner);
            else
                into[key] = value?.DeepClone();
        }
    }

    internal static string Text(JsonObject? config, string key) =>
        config?[key] is JsonValue value && value.GetValueKind() == JsonValueKind.String ? value.GetValue<string>() : "";

    private static Failure? PathFault(ComposedModel model)
    {
        foreach (var (field, path) in FileFields.Select(field => (field, Text(model.Config, field))).Prepend(("parameters.model", model.Model)))
        {
            // what is an address names no file; an absolute path is the node's to allow
            if (path.Length > 0 && !path.Contains("://", StringComparison.Ordinal) && (path.Split('/').Any(part => part is "." or "..") || path.Contains('\\', StringComparison.Ordinal) || path.Any(char.IsControl)
                || (path[0] == '/' && (field != "parameters.model" || model.Files.Count > 0))))
                return Failure.Invalid(field, $"invalid file path: {Short(path)}");
        }
        return null;
    }

    private static IEnumerable<GalleryFile> Downloads(JsonObject config) => (config["download_files"] as JsonArray ?? []).OfType<JsonObject>()
        .Select(file => new GalleryFile(Text(file, "filename"), Text(file, "uri"), Text(file, "sha256")));

    private static Result<GalleryFile[]> Files(IEnumerable<GalleryFile> all)
    {
        var files = new Dictionary<string, GalleryFile>(StringComparer.Ordinal);
        foreach (var file in all)
        {
            if (!ArtifactUri.Parse(file.Uri).TryGet(out var uri, out var refusal))
                return Failure.Invalid("files.uri", refusal.Detail);
            var name = file.Filename.Length > 0 ? file.Filename : uri.FileName;
            // without a name: a folder, or an image, whose files go where they were
            if (name.Length > 0 && ArtifactNames.PathFault(name) is { } fault)
                return Failure.Invalid("files.filename", $"invalid file path: {Short(name)} ({fault})");
            if (file.Sha256.Length > 0 && !GalleryNames.IsSha256(file.Sha256))
                return Failure.Invalid("files.sha256", "is no SHA-256: 64 hexadecimal digits");
            // of a file named twice, the later one counts: what a request adds goes before what the gallery has
            files[name.Length > 0 ? name : file.Uri] = new GalleryFile(name, file.Uri, file.Sha256.ToLowerInvariant());
        }
        return files.Count <= MaxFiles ? files.Values.ToArray() : Failure.Invalid("files", $"are more than {MaxFiles}");
    }

    // it is shown and logged: a line of its own would be no part of it
    private static string Short(string path) => string.Concat((path.Length <= 100 ? path : path[..100] + "...").Select(c => char.IsControl(c) ? '\uFFFD' : c));
}
