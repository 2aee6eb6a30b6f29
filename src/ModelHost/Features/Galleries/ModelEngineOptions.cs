using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Agent.Backends;
using ModelHost.Core;
using ModelHost.Core.Backends;
using ModelHost.Core.Galleries;
using ModelHost.Core.Routing;

namespace ModelHost.Features.Galleries;

/// <summary>
/// What a model's configuration says to the engine that serves it. To a gRPC backend everything is an option that its <c>LoadModel</c> or the translation of requests has
/// under its name; to any other what its recipe has an option for. The rest stays in the stored configuration, and is told.
/// </summary>
/// <param name="EngineArgs">Options by name.</param>
/// <param name="Unused">Fields that say something which is not done: the engine has no such option, or none of that kind.</param>
internal sealed record ModelEngineOptions(Dictionary<string, JsonElement> EngineArgs, IReadOnlyList<string> Unused)
{
    private const int MostTold = 12, LongestTold = 64, MostGpus = 64;
    private const string EngineOptions = "engine_args", Parameters = "parameters", Template = "template", OwnTemplate = "use_tokenizer_template";

    // of the model itself, or of clients' menus
    private static readonly HashSet<string> Descriptive =
    [
        "name", "backend", Parameters, Template, "download_files", "description", "usage", "license", "icon", "urls", "tags", "known_usecases",
        "gpu_memory_utilization", "tensor_parallel_size",
    ];

    // blocks whose fields LocalAI hands on as the backend's own
    private static readonly string[] Nested = ["diffusers", "tts", Parameters];

    // fields that name files which come with the model
    private static readonly HashSet<string> FileFields = ["mmproj", "draft_model", "lora_adapter", "lora_base", "lora_adapters", "clip_model", "control_net", "audio_path", "tokenizer"];

    /// <summary>GPUs that each layer is split over; null: the configuration does not say.</summary>
    public int? TensorParallelSize { get; private init; }

    /// <summary>Share of each GPU's memory; null: the configuration does not say.</summary>
    public double? GpuMemoryFraction { get; private init; }

    /// <summary>Reads a configuration. The failure names a field that cannot be meant.</summary>
    /// <param name="model">The model.</param>
    /// <param name="recipe">The recipe of its backend.</param>
    /// <param name="folder">Where its files will be.</param>
    public static Result<ModelEngineOptions> Read(ComposedModel model, BackendRecipe recipe, string folder)
    {
        var (options, unused) = (new Dictionary<string, JsonElement>(), new List<string>());
        if (recipe.Protocol == BackendCatalogue.Grpc)
            ReadLoaded(model, recipe, folder, options, unused);
        else if (ReadMapped(model, recipe, folder, options, unused) is { } fault)
            return fault;
        options["served_model_name"] = JsonSerializer.SerializeToElement(model.Name);
        return new ModelEngineOptions(options, unused)
        {
            TensorParallelSize = Number(model.Config, "tensor_parallel_size") is >= 1 and <= MostGpus and var size && size == Math.Floor(size) ? (int)size : null,
            GpuMemoryFraction = Number(model.Config, "gpu_memory_utilization") is > 0 and <= 1 and var share ? share : null,
        };
    }

    /// <summary>Puts an option in the place of what is known of it.</summary>
    public static void Put(Dictionary<string, JsonElement> options, string name, JsonElement value)
    {
        options.Remove(options.Keys.FirstOrDefault(known => BackendRecipe.IsSameOption(known, name)) ?? name);
        options[name] = value;
    }

    /// <summary>What is said of the fields that are not used; null: there are none.</summary>
    public string? Told(string backend) => Unused.Count == 0 ? null
        : $"not used with backend {backend}: {string.Join(", ", Unused.Take(MostTold).Select(field => field.Length <= LongestTold ? field : field[..LongestTold] + "…"))}{(Unused.Count > MostTold ? $" and {Unused.Count - MostTold} more" : "")}";

    private static void ReadLoaded(ComposedModel model, BackendRecipe recipe, string folder, Dictionary<string, JsonElement> options, List<string> unused)
    {
        void Take(string field, string name, JsonNode? node)
        {
            if (!IsSaid(node))
                return;
            var value = JsonSerializer.SerializeToElement(FileFields.Contains(name) ? Located(node!, model, folder) : node);
            var one = new Dictionary<string, JsonElement> { [name] = value };
            if ((ModelLoad.Check(recipe, one) ?? GenerationDefaults.Check(one)) is null)
                options[name] = value;
            else
                unused.Add(field);
        }
        foreach (var block in Nested)
        {
            foreach (var (key, value) in model.Config[block] as JsonObject ?? [])
            {
                if (key != "model")
                    Take($"{block}.{key}", key, value);
            }
        }
        foreach (var (key, value) in model.Config)
        {
            if (!Descriptive.Contains(key) && !Nested.Contains(key))
                Take(key, key, value);
        }
        Templates(model.Config[Template] as JsonObject, options, unused);
    }

    /// <summary>Templates of its own are not supported: the model's own is used, or a plain prompt where it is said that the model has none.</summary>
    private static void Templates(JsonObject? template, Dictionary<string, JsonElement> options, List<string> unused)
    {
        foreach (var (key, value) in template ?? [])
        {
            if (!IsSaid(value))
                continue;
            if (key == OwnTemplate && value!.GetValueKind() is JsonValueKind.True or JsonValueKind.False)
                options[key] = JsonSerializer.SerializeToElement(value);
            else
                unused.Add($"{Template}.{key}");
        }
    }

    private static Failure? ReadMapped(ComposedModel model, BackendRecipe recipe, string folder, Dictionary<string, JsonElement> options, List<string> unused)
    {
        var fields = Fields(model.Config, recipe);
        var refused = new HashSet<string>();
        foreach (var (field, option) in recipe.ConfigOptions)
        {
            // what the configuration says by two names, it says by the first
            if (fields.Find(one => one.Field == field).Value is not { } node || options.ContainsKey(option))
                continue;
            if (recipe.IsFile(option))
            {
                // what a folder of files holds is known once it is there
                var isOpen = model.Files.Any(file => file.Filename.Length == 0);
                if (node.GetValueKind() != JsonValueKind.String || node.GetValue<string>() is not { } path || (!isOpen && model.Files.All(file => file.Filename != path)))
                    return Failure.Invalid(field, "names none of the model's files");
                node = JsonValue.Create($"{folder}/{path}");
            }
            var value = JsonSerializer.SerializeToElement(node);
            if (EngineRequestRules.Check(recipe, new Dictionary<string, JsonElement> { [option] = value }, [], []) is null)
                options[option] = value;
            // an engine that starts without it would do something else than the model is for
            else if (recipe.IsFile(option))
                return Failure.Invalid(field, "names a file by a path that cannot be given to the engine: between its slashes are letters, digits and . _ @ + -");
            else
                refused.Add(field);
        }
        // a switch that is off asks for nothing, unless the engine has it on
        unused.AddRange(fields.Where(one => recipe.ConfigOptions.ContainsKey(one.Field) ? refused.Contains(one.Field)
            : one.Value.GetValueKind() != JsonValueKind.False || recipe.ConfigImplied.ContainsKey(one.Field)).Select(one => one.Field));
        foreach (var (name, value) in model.Config[EngineOptions] as JsonObject ?? [])
        {
            if (value is not null)
                Put(options, name, JsonSerializer.SerializeToElement(value));
        }
        return null;
    }

    /// <summary>What a configuration says to an engine, and not that it does anyway.</summary>
    private static List<(string Field, JsonNode Value)> Fields(JsonObject config, BackendRecipe recipe)
    {
        string[] blocks = [Parameters, Template, .. recipe.ConfigOptions.Keys.Concat(recipe.ConfigImplied.Keys).Where(field => field.Contains('.', StringComparison.Ordinal)).Select(field => field.Split('.')[0])];
        var open = config.SelectMany(field => blocks.Contains(field.Key) && field.Value is JsonObject block
            ? block.Where(one => (field.Key, one.Key) != (Parameters, "model")).Select(one => (Field: $"{field.Key}.{one.Key}", one.Value))
            : Descriptive.Contains(field.Key) || field.Key == EngineOptions ? [] : [(Field: field.Key, field.Value)]);
        return [.. open.Where(field => IsSaid(field.Value) && recipe.ConfigImplied.GetValueOrDefault(field.Field) != Text(field.Value!)).Select(field => (field.Field, field.Value!))];
    }

    private static string Text(JsonNode value) => value.GetValueKind() == JsonValueKind.String ? value.GetValue<string>() : value.ToJsonString();

    private static JsonNode Located(JsonNode value, ComposedModel model, string folder) => value switch
    {
        JsonArray list => new JsonArray([.. list.Select(item => item is null ? null : Located(item, model, folder))]),
        JsonValue text when text.TryGetValue<string>(out var path) && model.Files.Any(file => file.Filename == path) => JsonValue.Create($"{folder}/{path}"),
        _ => value.DeepClone(),
    };

    private static bool IsSaid(JsonNode? value) => value switch
    {
        null => false,
        JsonObject inner => inner.Count > 0,
        JsonArray list => list.Count > 0,
        _ => value.GetValueKind() != JsonValueKind.String || value.GetValue<string>().Length > 0,
    };

    private static double? Number(JsonObject config, string key) =>
        config[key] is JsonValue value && value.GetValueKind() == JsonValueKind.Number ? JsonSerializer.SerializeToElement(value).GetDouble() : null;
}
