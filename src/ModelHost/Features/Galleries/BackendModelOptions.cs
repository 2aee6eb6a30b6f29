using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Agent.Backends;
using ModelHost.Core.Backends;
using ModelHost.Core.Galleries;
using ModelHost.Core.Routing;

namespace ModelHost.Features.Galleries;

/// <summary>
/// What a model's configuration says to a gRPC backend. Everything is an option that the backend's <c>LoadModel</c> or the translation of requests has under
/// its name; what neither has stays in the stored configuration, and is told.
/// </summary>
/// <param name="EngineArgs">Options by name.</param>
/// <param name="Unused">Fields that say something which is not done: the backend has no such option, or none of that kind.</param>
internal sealed record BackendModelOptions(Dictionary<string, JsonElement> EngineArgs, IReadOnlyList<string> Unused)
{
    private const int MostTold = 12, LongestTold = 64;

    // of the model itself, or of clients' menus
    private static readonly HashSet<string> Descriptive =
    [
        "name", "backend", "parameters", "template", "download_files", "description", "usage", "license", "icon", "urls", "tags", "known_usecases",
        "gpu_memory_utilization", "tensor_parallel_size",
    ];

    // blocks whose fields LocalAI hands on as the backend's own
    private static readonly string[] Nested = ["diffusers", "tts", "parameters"];

    // fields that name files which come with the model
    private static readonly HashSet<string> FileFields = ["mmproj", "draft_model", "lora_adapter", "lora_base", "lora_adapters", "clip_model", "control_net", "audio_path", "tokenizer"];

    /// <summary>Reads a configuration.</summary>
    /// <param name="model">The model.</param>
    /// <param name="recipe">The recipe of its backend.</param>
    /// <param name="folder">Where its files will be.</param>
    public static BackendModelOptions Read(ComposedModel model, BackendRecipe recipe, string folder)
    {
        var (options, unused) = (new Dictionary<string, JsonElement>(), new List<string>());
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
        Templates(model.Config["template"] as JsonObject, options, unused);
        options["served_model_name"] = JsonSerializer.SerializeToElement(model.Name);
        return new BackendModelOptions(options, unused);
    }

    /// <summary>What is said of the fields that are not used; null: there are none.</summary>
    public string? Told(string backend) => Unused.Count == 0 ? null
        : $"not used with backend {backend}: {string.Join(", ", Unused.Take(MostTold).Select(field => field.Length <= LongestTold ? field : field[..LongestTold] + "…"))}{(Unused.Count > MostTold ? $" and {Unused.Count - MostTold} more" : "")}";

    /// <summary>Templates of its own are not supported: the model's own is used, or a plain prompt where it is said that the model has none.</summary>
    private static void Templates(JsonObject? template, Dictionary<string, JsonElement> options, List<string> unused)
    {
        foreach (var (key, value) in template ?? [])
        {
            if (!IsSaid(value))
                continue;
            if (key == "use_tokenizer_template" && value!.GetValueKind() is JsonValueKind.True or JsonValueKind.False)
                options[key] = JsonSerializer.SerializeToElement(value);
            else
                unused.Add($"template.{key}");
        }
    }

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
}
