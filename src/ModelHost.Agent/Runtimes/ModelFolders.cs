using ModelHost.Agent.Backends;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;

namespace ModelHost.Agent.Runtimes;

/// <summary>
/// The folders of this node from which models and adapters may be taken: those of <see cref="NodeOptions.ModelFolders"/>, and that of installed models. Judged at every start:
/// between the request and then, links can be laid and folders be gone.
/// </summary>
internal sealed class ModelFolders(NodeOptions options, NodeIdentity identity)
{
    /// <summary>The paths that a launch takes weights from.</summary>
    /// <returns>Each once, and none that lies within another; all plain, without links, and there.</returns>
    /// <exception cref="RuntimeException">One of them is not allowed, or not there.</exception>
    public IReadOnlyList<string> Resolve(LaunchSpec spec)
    {
        var paths = new List<string>();
        foreach (var (field, path) in Sources(spec).Where(source => ModelSource.IsPath(source.Path)))
        {
            if (Fault(path) is { } fault)
                throw new RuntimeException(fault) { Failure = new EngineFailure("model_path", $"{field}: {path} {fault}", IsFinal: true) };
            paths.Add(path);
        }
        return [.. paths.Distinct().Where(path => !paths.Exists(other => other != path && ModelSource.IsWithin(path, other)))];
    }

    private static IEnumerable<(string Field, string Path)> Sources(LaunchSpec spec) =>
    [
        ("model_name", spec.ModelName), .. spec.LoraModules.Select(module => ("lora_modules", module.Path)),
        .. BackendCatalogue.Of(spec) is not { } recipe ? [] : recipe.Protocol == BackendCatalogue.Grpc ? ModelLoad.PathsOf(spec) : recipe.PathsOf(spec),
    ];

    private string? Fault(string path)
    {
        if (ModelSource.Fault(path) is { } unreadable)
            return unreadable;
        if (!options.AllowedModelFolders.Append(identity.ModelsFolder).Any(folder => ModelSource.IsWithin(path, folder)))
            return options.AllowedModelFolders.Count == 0
                ? "is a path, and the node allows none (Node:ModelFolders)"
                : $"is in none of the folders that the node allows (Node:ModelFolders: {string.Join(", ", options.AllowedModelFolders)})";
        // from the root on: a link anywhere would lead out of the folder by another way
        for (var end = path.IndexOf('/', 1); ; end = path.IndexOf('/', end + 1))
        {
            var part = end < 0 ? path : path[..end];
            if (new FileInfo(part).LinkTarget is { } target)
                return $"leads through a symbolic link ({part} to {target}): name the place itself";
            if (end < 0)
                break;
        }
        return Directory.Exists(path) || File.Exists(path) ? null : "is not on the node";
    }
}
