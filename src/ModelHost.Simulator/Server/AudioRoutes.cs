using System.Globalization;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary>Speech to text. Nothing is heard: the words depend on the bytes of the file, and their number on its length.</summary>
internal sealed class AudioRoutes(ServerOptions options, RequestParser parser, Engine engine, AnswerWriter writer, TimeProvider time)
{
    private const double TokensPerSecond = 3;

    /// <summary>Largest file in MiB. <c>VLLM_MAX_AUDIO_CLIP_FILESIZE_MB</c>, default 25.</summary>
    private readonly long _maxMebibytes = Variable(options, "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", 25);

    /// <summary>Longest sound in seconds. <c>VLLM_MAX_AUDIO_DECODE_DURATION_S</c>, default 600.</summary>
    private readonly long _maxSeconds = Variable(options, "VLLM_MAX_AUDIO_DECODE_DURATION_S", 600);

    public Task TranscribeAsync(HttpContext context) => AnswerAsync(context, translates: false);

    public Task TranslateAsync(HttpContext context) => AnswerAsync(context, translates: true);

    private async Task AnswerAsync(HttpContext context, bool translates)
    {
        var form = await FormAsync(context);
        var request = AudioRequest.Read(form, model => parser.Model(model), ModelTasks.TellsTimes(options));
        if (request.File.Length > _maxMebibytes << 20)
            throw ApiException.Bad("Maximum file size exceeded", "audio_filesize_mb");
        await using var file = request.File.OpenReadStream();
        var audio = await AudioFile.ReadAsync(file, context.RequestAborted);
        if (audio.Seconds > _maxSeconds)
            throw ApiException.Bad(string.Create(CultureInfo.InvariantCulture, $"Audio of {audio.Seconds:F1} s is longer than {_maxSeconds} s."));
        var format = new AudioFormat(request, audio.Seconds, translates);
        var id = format.IdPrefix + GenerationRoutes.RequestId(context);
        using var generation = engine.Start(Generation(request, audio, translates).ToRankOf(context), context.RequestAborted, id);
        await writer.AnswerAsync(context, format, new AnswerHead(id, time.GetUtcNow().ToUnixTimeSeconds(), null, PromptTokensDetails: false), generation);
    }

    private GenerationRequest Generation(AudioRequest request, AudioFile audio, bool translates)
    {
        // the four tokens that tell Whisper its task
        var told = $"<|startoftranscript|><|{request.Language}|><|{(translates ? "translate" : "transcribe")}|><|notimestamps|>";
        var prompt = new Prompt(string.Create(CultureInfo.InvariantCulture, $"{told}{audio.Hash:x16}{request.Prompt}"), 4 + Tokenizer.Count(request.Prompt));
        parser.CheckLength(prompt, 0);
        var most = (int)Math.Min(request.MaxTokens ?? int.MaxValue, parser.MaxModelLength - prompt.Tokens);
        var (name, model) = parser.Model(request.Model);
        return new()
        {
            Model = name,
            Adapter = parser.Adapter(model),
            Prompts = [prompt],
            MaxTokens = most,
            MinTokens = (int)Math.Min(most - 1, Math.Ceiling(audio.Seconds * TokensPerSecond)),
            Seed = request.Seed,
            Stream = request.Stream,
            IncludeUsage = request.IncludeUsage || (request.Stream && options.Flags.Switch("enable_force_include_usage")),
        };
    }

    /// <summary>The form, whose files lie on disk beyond 64 KiB; null when the body is none.</summary>
    private static async Task<IFormCollection?> FormAsync(HttpContext context)
    {
        var feature = new FormFeature(context.Request, new FormOptions { MultipartBodyLengthLimit = HttpServer.MaxBodyBytes, ValueCountLimit = 256 });
        if (!feature.HasFormContentType)
            return null;
        context.Features.Set<IFormFeature>(feature);
        try
        {
            return await feature.ReadFormAsync(context.RequestAborted);
        }
        catch (Exception e) when (e is InvalidDataException or IOException && !context.RequestAborted.IsCancellationRequested && e is not BadHttpRequestException)
        {
            throw new ApiException(400, Reasons.Of(400), "There was an error parsing the body");
        }
    }

    private static long Variable(ServerOptions options, string name, long otherwise) =>
        long.TryParse(options.VllmEnvironment.FirstOrDefault(pair => pair.Key == name).Value, NumberStyles.None, CultureInfo.InvariantCulture, out var value)
            ? Math.Min(value, 1 << 20) : otherwise;
}
