using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Sleep;

namespace ModelHost.Simulator.Server;

/// <summary>The routes of <c>VLLM_SERVER_DEV_MODE=1</c>: sleep, cache resets, pause, and calls into the workers.</summary>
internal sealed class DevRoutes(ServerOptions options, Engine engine, SleepMode sleep)
{
    private static readonly string[] SleepTags = [SleepMode.Weights, SleepMode.KvCache];

    private static readonly string[] WakeTags = [.. SleepTags, SleepMode.Scheduling];

    private int Ranks => options.Parallel.Ranks;

    public IReadOnlyList<Route> All() =>
    [
        new("/sleep", ["POST"], SleepAsync),
        new("/wake_up", ["POST"], WakeAsync),
        new("/is_sleeping", ["GET"], context => Answers.ObjectAsync(context, json => json.WriteBoolean("is_sleeping"u8, sleep.IsSleeping))),
        new("/reset_prefix_cache", ["POST"], ResetPrefixCacheAsync),
        new("/reset_mm_cache", ["POST"], EmptyAsync),
        new("/reset_encoder_cache", ["POST"], EmptyAsync),
        new("/server_info", ["GET"], ServerInfoAsync),
        new("/collective_rpc", ["POST"], CallWorkersAsync),
        new("/pause", ["POST"], PauseAsync),
        new("/resume", ["POST"], ResumeAsync),
        new("/is_paused", ["GET"], context => Answers.ObjectAsync(context, json => json.WriteBoolean("is_paused"u8, engine.IsPaused))),
        new("/abort_requests", ["POST"], AbortAsync),
        new("/get_world_size", ["GET"], WorldSizeAsync),
    ];

    private async Task SleepAsync(HttpContext context)
    {
        var query = context.Request.Query;
        var level = (query["level"].LastOrDefault() ?? "1") switch
        {
            "0" => 0,
            "1" => 1,
            "2" => 2,
            var other => throw ApiException.Bad($"level must be 0, 1 or 2, got {other}.", "level"),
        };
        var mode = Mode(context) ?? throw ApiException.Bad($"mode must be 'abort', 'wait' or 'keep', got '{query["mode"]}'.", "mode");
        await sleep.SleepAsync(level, mode, options.Release.Has(Traits.SleepsByTag) ? Tags(context, SleepTags) : [], context.RequestAborted);
        await EmptyAsync(context);
    }

    private async Task WakeAsync(HttpContext context)
    {
        await sleep.WakeAsync(Tags(context, WakeTags), context.RequestAborted);
        await EmptyAsync(context);
    }

    private Task ResetPrefixCacheAsync(HttpContext context)
    {
        engine.ForgetPrompts(force: Flag(context, "reset_running_requests", otherwise: false));
        return EmptyAsync(context);
    }

    private Task ServerInfoAsync(HttpContext context)
    {
        var format = context.Request.Query["config_format"].LastOrDefault() ?? "text";
        if (format is not ("text" or "json"))
            throw ApiException.Shape("query.config_format", "literal_error", "Input should be 'text' or 'json'");
        return Answers.ObjectAsync(context, json =>
        {
            if (format == "json")
            {
                json.WriteStartObject("vllm_config"u8);
                json.WriteStartObject("model_config"u8);
                json.WriteString("model"u8, options.Model);
                json.WriteString("served_model_name"u8, options.ServedNames[0]);
                json.WriteBoolean("enable_sleep_mode"u8, options.Flags.Switch("enable_sleep_mode"));
                json.WriteEndObject();
                json.WriteStartObject("parallel_config"u8);
                json.WriteNumber("tensor_parallel_size"u8, options.TensorParallel);
                json.WriteNumber("pipeline_parallel_size"u8, options.PipelineParallel);
                json.WriteEndObject();
                json.WriteEndObject();
            }
            else
            {
                json.WriteString("vllm_config"u8, $"model='{options.Model}', served_model_name={options.ServedNames[0]}, " +
                    $"tensor_parallel_size={options.TensorParallel}, pipeline_parallel_size={options.PipelineParallel}");
            }
            json.WriteStartObject("vllm_env"u8);
            foreach (var (name, value) in options.VllmEnvironment)
                json.WriteString(name, value);
            json.WriteEndObject();
            json.WriteStartObject("system_env"u8);
            json.WriteString("os"u8, System.Runtime.InteropServices.RuntimeInformation.OSDescription);
            json.WriteEndObject();
        });
    }

    private async Task CallWorkersAsync(HttpContext context)
    {
        var method = await BodyAsync(context, body => body.ValueKind == JsonValueKind.Object ? body.Text("method") : null);
        if (string.IsNullOrEmpty(method))
            throw new ApiException(400, Reasons.Of(400), "Missing 'method' in request body");
        if (method != "reload_weights")
            throw ApiException.Internal();
        await sleep.ReloadAsync(context.RequestAborted);
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteStartArray("results"u8);
            for (var rank = 0; rank < Ranks; rank++)
                json.WriteNullValue();
            json.WriteEndArray();
        });
    }

    private async Task PauseAsync(HttpContext context)
    {
        if (Mode(context) is not { } mode)
        {
            await Answers.ObjectAsync(context, json => json.WriteString("error"u8, $"Invalid pause mode: {context.Request.Query["mode"]}"), 400);
            return;
        }
        await sleep.PauseAsync(mode, Flag(context, "clear_cache", otherwise: true), context.RequestAborted);
        await Answers.ObjectAsync(context, json => json.WriteString("status"u8, "paused"u8));
    }

    private async Task ResumeAsync(HttpContext context)
    {
        await sleep.ResumeAsync(context.RequestAborted);
        await Answers.ObjectAsync(context, json => json.WriteString("status"u8, "resumed"u8));
    }

    private async Task AbortAsync(HttpContext context)
    {
        var ids = await BodyAsync(context, body => body.ValueKind == JsonValueKind.Object && body.Field("request_ids") is { ValueKind: JsonValueKind.Array } list
            ? list.EnumerateArray().Where(id => id.ValueKind == JsonValueKind.String).Select(id => id.GetString()!).ToArray() : []);
        var aborted = engine.Abort(ids);
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteString("status"u8, "aborted"u8);
            json.WriteNumber("aborted"u8, aborted);
        });
    }

    private Task WorldSizeAsync(HttpContext context)
    {
        var data = Flag(context, "include_dp", otherwise: true) ? options.Parallel.Data : 1;
        return Answers.ObjectAsync(context, json => json.WriteNumber("world_size"u8, Ranks * data));
    }

    private static Task EmptyAsync(HttpContext context)
    {
        context.Response.ContentLength = 0;
        return Task.CompletedTask;
    }

    private static bool Flag(HttpContext context, string name, bool otherwise) => context.Request.Query[name].LastOrDefault()?.ToLowerInvariant() switch
    {
        "true" or "1" => true,
        "false" or "0" => false,
        _ => otherwise,
    };

    private static PauseMode? Mode(HttpContext context) => context.Request.Query["mode"].LastOrDefault() switch
    {
        null or "abort" => PauseMode.Abort,
        "wait" => PauseMode.Wait,
        "keep" => PauseMode.Keep,
        _ => null,
    };

    private static IReadOnlyCollection<string> Tags(HttpContext context, string[] known) =>
        [.. context.Request.Query["tags"].OfType<string>().Select(tag => known.Contains(tag) ? tag
            : throw ApiException.Bad($"tags must be of {string.Join(", ", known)}, got {tag}.", "tags"))];

    /// <summary>These routes read their body whatever its content type.</summary>
    private static async Task<T> BodyAsync<T>(HttpContext context, Func<JsonElement, T> use)
    {
        using var reader = new StreamReader(context.Request.Body);
        var text = await reader.ReadToEndAsync(context.RequestAborted);
        try
        {
            using var document = JsonDocument.Parse(text.Length == 0 ? "{}" : text);
            return use(document.RootElement);
        }
        catch (JsonException e)
        {
            throw new ApiException(400, Reasons.Of(400), $"JSON decode error: {e.Message}");
        }
    }
}
