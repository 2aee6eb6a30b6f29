using System.Globalization;
using Microsoft.AspNetCore.Http;

namespace ModelHost.Simulator.Requests;

/// <summary>The fields of a transcription or translation, which come as a form.</summary>
internal sealed record AudioRequest
{
    private static readonly string[] Formats = ["json", "text", "srt", "verbose_json", "vtt"];

    /// <summary>What Whisper was trained on.</summary>
    private static readonly string[] Languages = (
        "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn " +
        "et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha " +
        "ba jw su yue").Split(' ');

    public required IFormFile File { get; init; }

    public string? Model { get; init; }

    public string Prompt { get; init; } = "";

    /// <summary>The language that is spoken. Default English, for want of ears.</summary>
    public string Language { get; init; } = "en";

    public double Temperature { get; init; }

    public int? MaxTokens { get; init; }

    public int? Seed { get; init; }

    public bool Verbose { get; init; }

    public bool Stream { get; init; }

    public bool IncludeUsage { get; init; }

    public bool ContinuousUsage { get; init; }

    /// <summary>Checks the fields in vLLM's order: their shapes, the model, then what goes together.</summary>
    /// <param name="form">The form; null when the body is none.</param>
    /// <param name="checkModel">Refuses a model that is not served.</param>
    /// <param name="tellsTimes">The model can say when each sentence was spoken.</param>
    public static AudioRequest Read(IFormCollection? form, Action<string?> checkModel, bool tellsTimes)
    {
        if (form?.ContainsKey("file") == true)
            throw new ApiException(422, Server.Reasons.Of(422), "Expected 'file' to be a file-like object, not 'str'.");
        var file = form?.Files["file"] ?? throw ApiException.Shape("body.file", "missing", "Field required");
        var stream = Flag(form, "stream");
        foreach (var name in new[] { "stream_include_usage", "stream_continuous_usage_stats" })
            if (Flag(form, name) && !stream)
                throw ApiException.Bad("Stream options can only be defined when `stream=True`.", name);
        var format = Text(form, "response_format") ?? "json";
        if (!Formats.Contains(format))
            throw ApiException.Shape("body.response_format", "literal_error", $"Input should be one of {string.Join(", ", Formats)}");
        var temperature = Number(form, "temperature") ?? 0;
        var (most, seed) = (Integer(form, "max_completion_tokens"), Integer(form, "seed"));
        checkModel(Text(form, "model"));
        if (format is "srt" or "vtt")
            throw ApiException.Bad("Currently only support response_format: `text`, `json` or `verbose_json`");
        if (format == "verbose_json" && !tellsTimes)
            throw ApiException.Bad($"Currently do not support verbose_json for {Text(form, "model")}");
        if (format == "verbose_json" && stream)
            throw ApiException.Bad("verbose_json format doesn't support streaming case");
        if (Text(form, "language") is { } language && !Languages.Contains(language))
            throw ApiException.Bad($"Unsupported language: '{language}'.  Must be one of {string.Join(", ", Languages)}.");
        if (temperature < 0)
            throw ApiException.Bad(string.Create(CultureInfo.InvariantCulture, $"temperature must be non-negative, got {temperature}."), "temperature");
        if (most < 1)
            throw ApiException.Bad($"max_tokens must be at least 1, got {most}.", "max_tokens");
        return new()
        {
            File = file,
            Model = Text(form, "model"),
            Prompt = Text(form, "prompt") ?? "",
            Language = Text(form, "language") ?? "en",
            Temperature = temperature,
            MaxTokens = most,
            Seed = seed,
            Verbose = format == "verbose_json",
            Stream = stream,
            IncludeUsage = Flag(form, "stream_include_usage"),
            ContinuousUsage = Flag(form, "stream_include_usage") && Flag(form, "stream_continuous_usage_stats"),
        };
    }

    private static string? Text(IFormCollection form, string name) => form[name].LastOrDefault() is { Length: > 0 } text ? text : null;

    private static bool Flag(IFormCollection form, string name) => Text(form, name)?.ToLowerInvariant() switch
    {
        null or "false" or "0" or "no" or "off" or "f" or "n" => false,
        "true" or "1" or "yes" or "on" or "t" or "y" => true,
        _ => throw ApiException.Shape("body." + name, "bool_parsing", "Input should be a valid boolean, unable to interpret input"),
    };

    private static double? Number(IFormCollection form, string name) => Text(form, name) switch
    {
        null => null,
        var text when double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) && double.IsFinite(number) => number,
        _ => throw ApiException.Shape("body." + name, "float_parsing", "Input should be a valid number, unable to parse string as a number"),
    };

    private static int? Integer(IFormCollection form, string name) => Text(form, name) switch
    {
        null => null,
        var text when int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) => number,
        _ => throw ApiException.Shape("body." + name, "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    };
}
