using System.Text.Json;
using System.Text.RegularExpressions;
using ModelHost.Core.Engines;

namespace ModelHost.Core.Backends;

/// <summary>
/// What the recipe of an installed backend may say. It comes from a gallery, so from somebody else: it chooses an image, its arguments and where it is asked,
/// and nothing of what a node keeps closed.
/// </summary>
public static partial class RecipeRules
{
    /// <summary>Longest recipe, in characters of JSON. It stands in the label of each container.</summary>
    public const int MaxLength = 24 * 1024;

    private const string ServedName = "served_model_name";
    private const int MaxDepth = 16, MaxArguments = 128, MaxText = 1024, MaxFields = 96;
    private static readonly string[] Devices = ["nvidia", "amd", "cpu"];
    private static readonly string[] Runtimes = [.. ContainerRuntimes.All, "process"];

    // they make a program load other code, wherever it comes from
    private static readonly Regex Loaders = new(@"\A(?:LD_|DYLD_|DOTNET_|CORECLR_|PYTHON|PATH\z|HOME\z|IFS\z|BASH_|NODE_|GCONV_)", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant);

    /// <summary>Reads a recipe, and sees that it keeps to the rules.</summary>
    /// <param name="name">Name of the backend.</param>
    /// <param name="json">A JSON object; <c>extends</c> names a recipe that every build knows.</param>
    /// <exception cref="RecipeException">It is none, or does not.</exception>
    public static BackendRecipe Read(string name, string json)
    {
        ArgumentNullException.ThrowIfNull(json);
        if (json.Length > MaxLength)
            throw new RecipeException($"it is longer than {MaxLength} characters");
        BackendRecipe recipe;
        try
        {
            // as JSON first: YAML could say more with less, and without end
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { MaxDepth = MaxDepth });
            if (HasNull(document.RootElement))
                throw new RecipeException("a value of it is null");
            recipe = BackendCatalogue.Parse(document.RootElement.GetRawText()) with { Name = name };
            // the public name is the deployment's, whatever flag the engine has for it
            if (!recipe.ControlOptions.Contains(ServedName))
                recipe = recipe with { ControlOptions = [.. recipe.ControlOptions, ServedName] };
        }
        catch (Exception e) when (e is JsonException or YamlDotNet.Core.YamlException)
        {
            throw new RecipeException(e.InnerException?.Message ?? e.Message, e);
        }
        return Fault(recipe) is { } fault ? throw new RecipeException(fault) : recipe;
    }

    private static string? Fault(BackendRecipe recipe) =>
        recipe.Protocol != "openai" ? "protocol: it is openai; a backend of LocalAI's protocol needs no recipe"
        : recipe.Runtimes.Length == 0 || recipe.Runtimes.Except(Runtimes).Any() ? $"runtimes: they are some of {string.Join(", ", Runtimes)}"
        : !Devices.Contains(recipe.Device) ? $"device: it is one of {string.Join(", ", Devices)}"
        : ContainerRuntimes.AreIn(recipe.Runtimes) && !IsImage(recipe.Image) ? "image: it is the name of none"
        : Texts(recipe.Command, "command") ?? Texts(recipe.Arguments, "arguments") ?? Texts(recipe.InstallPackages, "install_packages")
            ?? (recipe.Arguments.Any(argument => argument.Contains("{engine_port}", StringComparison.Ordinal)) ? null : "arguments: none of them is {engine_port}, so that it could not be reached")
            ?? Path(recipe.ReadyPath, "ready_path", isNeeded: true) ?? Path(recipe.MetricsPath, "metrics_path", isNeeded: false)
            ?? Variable(recipe.KeyVariable, "key_variable") ?? Variable(recipe.GpuVariable, "gpu_variable")
            ?? (recipe.CacheMount.Length == 0 || Folder().IsMatch(recipe.CacheMount) ? null : "cache_mount: it is no absolute path inside of the container")
            ?? Config(recipe) ?? Patterns(recipe) ?? Process(recipe);

    private static bool IsImage(string image) =>
        EngineImage.IsValidRepository(image) || EngineImage.Split(image) is not null
        || (image.Split("@sha256:") is [var repository, { Length: 64 } digest] && EngineImage.IsValidRepository(repository) && digest.All(char.IsAsciiHexDigitLower));

    private static string? Texts(string[] texts, string field) =>
        texts.Length > MaxArguments || texts.Any(text => text.Length > MaxText || text.Any(char.IsControl)) ? $"{field}: too many, too long, or with control characters" : null;

    // it is put behind the address of the engine, and asked with its key: it must not lead elsewhere
    private static string? Path(string path, string field, bool isNeeded) =>
        path.Length == 0 && !isNeeded ? null : UrlPath().IsMatch(path) ? null : $"{field}: it is no path";

    private static string? Variable(string name, string field) =>
        name.Length == 0 ? null : !VariableName().IsMatch(name) || Loaders.IsMatch(name) ? $"{field}: it is no variable that may be set" : null;

    // whether an option may be given is seen where it is: what a model says is a request like any other
    private static string? Config(BackendRecipe recipe) =>
        Fields(recipe.ConfigOptions, "config_options") ?? Fields(recipe.ConfigImplied, "config_implied") ?? Texts([.. recipe.ConfigImplied.Values], "config_implied")
            ?? Options(recipe.ConfigOptions.Values, "config_options") ?? Options(recipe.FileOptions, "file_options");

    private static string? Fields(Dictionary<string, string> said, string field) =>
        said.Count > MaxFields || !said.Keys.All(ConfigField().IsMatch) ? $"{field}: too many, or a name that no field of a configuration has" : null;

    private static string? Options(IReadOnlyCollection<string> options, string field) =>
        options.Count > MaxFields || !options.All(EngineRequestRules.IsOption) ? $"{field}: too many, or one that is no name of an option" : null;

    private static string? Patterns(BackendRecipe recipe)
    {
        foreach (var pattern in recipe.Failures.SelectMany(failure => failure.Patterns).Concat(recipe.MemoryLines.Select(line => line.Pattern)))
        {
            try
            {
                // so they are used: in time that grows with the text alone
                _ = new Regex(pattern, RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.NonBacktracking);
            }
            catch (Exception e) when (e is ArgumentException or NotSupportedException)
            {
                return $"'{pattern[..Math.Min(pattern.Length, 64)]}' is no regular expression that can be used";
            }
        }
        return null;
    }

    /// <summary>A process runs as ModelHost does, with all that it may do: no recipe says which.</summary>
    private static string? Process(BackendRecipe recipe)
    {
        if (!recipe.Runtimes.Contains("process"))
            return null;
        var own = BackendCatalogue.BuiltIn["simulator"];
        return !recipe.Command.SequenceEqual(own.Command) ? "command: a process is the simulator's; what else is started is an image"
            : recipe.AllowedVariablePrefixes.Length == 0 || recipe.AllowedVariablePrefixes.Except(own.AllowedVariablePrefixes).Any() ? $"allowed_variable_prefixes: of a process they are {string.Join(", ", own.AllowedVariablePrefixes)}"
            : null;
    }

    private static bool HasNull(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.Null => true,
        JsonValueKind.Array => element.EnumerateArray().Any(HasNull),
        JsonValueKind.Object => element.EnumerateObject().Any(property => HasNull(property.Value)),
        _ => false,
    };

    [GeneratedRegex(@"\A/(?:[A-Za-z0-9_.~-][A-Za-z0-9_.~/-]{0,200})?\z")]
    private static partial Regex UrlPath();

    [GeneratedRegex(@"\A(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}|/\.[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}){1,16}\z")]
    private static partial Regex Folder();

    [GeneratedRegex(@"\A[A-Za-z_][A-Za-z0-9_]{0,127}\z")]
    private static partial Regex VariableName();

    [GeneratedRegex(@"\A[a-z][a-z0-9_]{0,63}(?:\.[a-z][a-z0-9_]{0,63})?\z")]
    private static partial Regex ConfigField();
}

/// <summary>A recipe that may not be used.</summary>
public sealed class RecipeException(string message, Exception? inner = null) : Exception(message, inner);
