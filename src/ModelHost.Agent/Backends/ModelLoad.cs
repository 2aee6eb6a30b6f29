using System.Collections;
using System.Text.Json;
using Google.Protobuf.Reflection;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Protocol.Backend;

namespace ModelHost.Agent.Backends;

/// <summary>
/// How a deployment becomes the <see cref="ModelOptions"/> of a backend: the options of the request go by the names that LocalAI's model files have, or by those of
/// the fields themselves, in any spelling of words; what is not said is as LocalAI has it.
/// </summary>
/// <param name="options">Says which folders a path may lead to.</param>
/// <param name="modelsFolder">Folder of the node's own models.</param>
public sealed class ModelLoad(NodeOptions options, string modelsFolder)
{
    // LocalAI's own defaults
    private const int DefaultContext = 4096, DefaultBatch = 512, AllLayers = 99_999_999;
    private const string StorePrefix = "store://";

    // the model and where it lies are the deployment's; a proxy would be sent on to another server with a key of ours
    private static readonly string[] Ours = ["Model", "ModelFile", "ModelPath", "Proxy", "GPUMemoryUtilization", "TensorParallelSize"];
    private static readonly string[] Paths =
        ["LoraBase", "LoraAdapter", "LoraAdapters", "MMProj", "DraftModel", "CLIPModel", "CLIPSubfolder", "ControlNet", "AudioPath", "Tokenizer"];
    private static readonly string[] Stores = ["local-store", "embedded-store", "valkey-store", "valkey"];

    // what LocalAI's model files call otherwise than the message does
    private static readonly Dictionary<string, string> Aliases = new()
    {
        ["batch"] = "NBatch",
        ["cachetypek"] = "CacheTypeKey",
        ["cachetypev"] = "CacheTypeValue",
        ["disablelogstats"] = "DisableLogStatus",
        ["enablescore"] = "EnableScore",
        ["f16"] = "F16Memory",
        ["gpulayers"] = "NGPULayers",
        ["mmlock"] = "MLock",
        ["nokvoffloading"] = "NoKVOffload",
        ["rmsnormeps"] = "RMSNormEps",
        ["ngqa"] = "NGQA",
        ["nomulmatq"] = "NoMulMatQ",
    };

    private static readonly Dictionary<string, FieldDescriptor> Fields = Named();

    /// <summary>Checks the options of a request.</summary>
    /// <returns>The first fault, or null.</returns>
    public static Failure? Check(BackendRecipe recipe, IReadOnlyDictionary<string, JsonElement> engineArgs)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        var loaded = new ModelOptions();
        return engineArgs.Where(arg => !recipe.ControlOptions.Contains(arg.Key)).Select(arg => Set(loaded, arg.Key, arg.Value) is { } fault
            ? Failure.Invalid("engine_args", $"'{arg.Key}' {fault}") : null).FirstOrDefault(failure => failure is not null);
    }

    /// <summary>What a backend is asked to load. Options that it was not checked for are left out.</summary>
    /// <param name="recipe">The backend.</param>
    /// <param name="spec">The deployment.</param>
    public ModelOptions Options(BackendRecipe recipe, LaunchSpec spec)
    {
        ArgumentNullException.ThrowIfNull(recipe);
        ArgumentNullException.ThrowIfNull(spec);
        var load = Located(recipe, spec);
        load.ContextSize = DefaultContext;
        (load.NBatch, load.NGPULayers, load.MMap, load.FlashAttention) = (DefaultBatch, AllLayers, true, "auto");
        (load.Threads, load.CUDA) = (Environment.ProcessorCount, spec.GpuIds.Count > 0);
        (load.GPUMemoryUtilization, load.TensorParallelSize) = ((float)spec.GpuMemoryFraction, spec.TensorParallelSize ?? 0);
        foreach (var (name, value) in spec.EngineArgs.Where(arg => !recipe.ControlOptions.Contains(arg.Key)))
            Set(load, name, value);
        if (load.MaxModelLen > 0 && load.ContextSize == DefaultContext)
            load.ContextSize = load.MaxModelLen;
        // LocalAI hands this one on by its full path
        if (load.MMProj.Length > 0 && !ModelSource.IsPath(load.MMProj))
            load.MMProj = Path.Combine(load.ModelPath, load.MMProj);
        return load;
    }

    /// <summary>The paths that the options of a launch name, beside the model's own; each has to lie where paths may lead.</summary>
    public static IEnumerable<(string Option, string Path)> PathsOf(LaunchSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        foreach (var (name, value) in spec.EngineArgs)
        {
            if (!Fields.TryGetValue(Plain(name), out var field) || !Paths.Contains(field.Name))
                continue;
            foreach (var path in Texts(value).Where(ModelSource.IsPath))
                yield return (name, path);
        }
    }

    /// <summary>The model, as a name and as a file in a folder of models.</summary>
    private ModelOptions Located(BackendRecipe recipe, LaunchSpec spec)
    {
        if (Stores.Contains(recipe.Name))
            return new ModelOptions { Model = StorePrefix + spec.ModelName, ModelPath = modelsFolder };
        if (!ModelSource.IsPath(spec.ModelName))
            return new ModelOptions { Model = spec.ModelName, ModelFile = Path.Combine(modelsFolder, spec.ModelName), ModelPath = modelsFolder };
        var folder = options.AllowedModelFolders.Where(folder => ModelSource.IsWithin(spec.ModelName, folder) && folder != spec.ModelName)
            .MaxBy(folder => folder.Length) ?? Path.GetDirectoryName(spec.ModelName)!;
        return new ModelOptions { Model = Path.GetRelativePath(folder, spec.ModelName), ModelFile = spec.ModelName, ModelPath = folder };
    }

    private static Dictionary<string, FieldDescriptor> Named()
    {
        var fields = ModelOptions.Descriptor.Fields.InDeclarationOrder().Where(field => !Ours.Contains(field.Name)).ToDictionary(field => field.Name);
        var named = fields.Values.ToDictionary(field => Plain(field.Name));
        foreach (var (alias, name) in Aliases)
            named[alias] = fields[name];
        return named;
    }

    private static string Plain(string name) => name.Replace("_", "", StringComparison.Ordinal).Replace("-", "", StringComparison.Ordinal).ToLowerInvariant();

    /// <summary>Sets one field.</summary>
    /// <returns>What is wrong with it; null: nothing, or it says nothing.</returns>
    private static string? Set(ModelOptions load, string name, JsonElement value)
    {
        if (!Fields.TryGetValue(Plain(name), out var field))
            return "is no option of gRPC backends, or is set by ModelHost; what only this backend knows goes into options, as \"key:value\"";
        if (value.ValueKind == JsonValueKind.Null)
            return null;
        if (Paths.Contains(field.Name) && Texts(value).Any(path => path.Split('/').Contains("..")))
            return "leads out of its folder";
        if (!field.IsRepeated)
        {
            if (Read(field, value) is not { } one)
                return $"takes {Kind(field)}";
            field.Accessor.SetValue(load, one);
            return null;
        }
        if (value.ValueKind != JsonValueKind.Array)
            return $"takes a list: {Kind(field)} each";
        var list = (IList)field.Accessor.GetValue(load);
        foreach (var item in value.EnumerateArray())
        {
            if (Read(field, item) is not { } one)
                return $"takes a list: {Kind(field)} each";
            list.Add(one);
        }
        return null;
    }

    private static object? Read(FieldDescriptor field, JsonElement value) => (field.FieldType, value.ValueKind) switch
    {
        (FieldType.String, JsonValueKind.String) => value.GetString(),
        // JSON that goes on as text
        (FieldType.String, JsonValueKind.Object) when field.Name == "EngineArgs" => value.GetRawText(),
        // a GPU, or what a model file may say without quotes
        (FieldType.String, JsonValueKind.Number) => value.GetRawText(),
        (FieldType.String, JsonValueKind.True or JsonValueKind.False) when field.Name == "FlashAttention" => value.GetRawText(),
        (FieldType.Bool, JsonValueKind.True or JsonValueKind.False) => value.GetBoolean(),
        (FieldType.Int32, JsonValueKind.Number) when value.TryGetInt32(out var number) => number,
        (FieldType.Float, JsonValueKind.Number) when value.TryGetSingle(out var number) && float.IsFinite(number) => number,
        (FieldType.Message, JsonValueKind.String) => new GrammarTrigger { Word = value.GetString() },
        _ => null,
    };

    private static string Kind(FieldDescriptor field) => field.FieldType switch
    {
        FieldType.Bool => "true or false",
        FieldType.Int32 => "a whole number",
        FieldType.Float => "a number",
        _ => "a text",
    };

    private static IEnumerable<string> Texts(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => [value.GetString()!],
        JsonValueKind.Array => value.EnumerateArray().Where(item => item.ValueKind == JsonValueKind.String).Select(item => item.GetString()!),
        _ => [],
    };
}
