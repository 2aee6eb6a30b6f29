using System.Text.Json;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Text;

namespace ModelHost.Simulator.Server;

/// <summary>The routes that need no engine: health, version, load, models, metrics and the tokenizer.</summary>
internal sealed class SmallRoutes(
    ServerOptions options, MemoryPlan plan, RequestParser parser, Engine engine, MetricsPage metrics, TimeProvider time)
{
    /// <summary>200 as long as the engine lives, even when it is stopping; there is never a body.</summary>
    public Task HealthAsync(HttpContext context)
    {
        context.Response.StatusCode = engine.IsDead ? 503 : 200;
        context.Response.ContentLength = 0;
        return Task.CompletedTask;
    }

    public Task VersionAsync(HttpContext context) => Answers.ObjectAsync(context, json => json.WriteString("version"u8, options.Knobs.Version));

    public Task LoadAsync(HttpContext context) => Answers.ObjectAsync(context, json =>
        json.WriteNumber("server_load"u8, options.Flags.Switch("enable_server_load_tracking") ? engine.InFlight : 0));

    public Task MetricsAsync(HttpContext context) => Answers.TextAsync(context, metrics.Render(), "text/plain; version=0.0.4; charset=utf-8");

    public Task ModelsAsync(HttpContext context) => Answers.ObjectAsync(context, json =>
    {
        json.WriteString("object"u8, "list"u8);
        json.WriteStartArray("data"u8);
        foreach (var name in options.ServedNames)
            Card(json, name, options.Model, null, plan.MaxModelLength);
        foreach (var lora in engine.Adapters.All)
            Card(json, lora.Name, lora.Path, lora.BaseModelName ?? options.ServedNames[0], null);
        json.WriteEndArray();
    });

    public async Task TokenizeAsync(HttpContext context)
    {
        var (text, withTexts) = await RequestBody.ReadAsync(context, body =>
        {
            parser.Model(body);
            var prompt = body.Field("messages") is null
                ? RequestParser.Prompts(body, "prompt")[0]
                : RequestParser.ChatPrompt(RequestParser.Messages(body), body.Flag("add_generation_prompt", otherwise: true));
            return (prompt.Text, body.Flag("return_token_strs"));
        });
        var tokens = Tokenizer.Encode(text);
        await Answers.ObjectAsync(context, json =>
        {
            json.WriteNumber("count"u8, tokens.Count);
            json.WriteNumber("max_model_len"u8, plan.MaxModelLength);
            json.WriteStartArray("tokens"u8);
            foreach (var token in tokens)
                json.WriteNumberValue(token);
            json.WriteEndArray();
            if (!withTexts)
            {
                json.WriteNull("token_strs"u8);
                return;
            }
            json.WriteStartArray("token_strs"u8);
            foreach (var token in tokens)
                json.WriteStringValue(Tokenizer.Decode([token]));
            json.WriteEndArray();
        });
    }

    public async Task DetokenizeAsync(HttpContext context)
    {
        var text = await RequestBody.ReadAsync(context, body =>
        {
            parser.Model(body);
            return body.Field("tokens") is { ValueKind: JsonValueKind.Array } tokens && tokens.GetArrayLength() == 0
                ? "" : RequestParser.Prompts(body, "tokens")[0].Text;
        });
        await Answers.ObjectAsync(context, json => json.WriteString("prompt"u8, text));
    }

    /// <summary>The configuration of the tokenizer, as far as there is one here.</summary>
    public Task TokenizerInfoAsync(HttpContext context) => Answers.ObjectAsync(context, json =>
    {
        json.WriteString("tokenizer_class"u8, "Qwen2TokenizerFast"u8);
        json.WriteNumber("model_max_length"u8, plan.MaxModelLength);
        json.WriteString("eos_token"u8, Likelihood.EndOfText);
    });

    private void Card(Utf8JsonWriter json, string id, string root, string? parent, long? maxModelLength)
    {
        // the time of this call and a fresh permission each time, as vLLM builds its cards anew
        var created = time.GetUtcNow().ToUnixTimeSeconds();
        json.WriteStartObject();
        json.WriteString("id"u8, id);
        json.WriteString("object"u8, "model"u8);
        json.WriteNumber("created"u8, created);
        json.WriteString("owned_by"u8, "vllm"u8);
        json.WriteString("root"u8, root);
        json.WriteString("parent"u8, parent);
        if (maxModelLength is { } length)
            json.WriteNumber("max_model_len"u8, length);
        else
            json.WriteNull("max_model_len"u8);
        json.WriteStartArray("permission"u8);
        json.WriteStartObject();
        json.WriteString("id"u8, $"modelperm-{Guid.NewGuid():N}");
        json.WriteString("object"u8, "model_permission"u8);
        json.WriteNumber("created"u8, created);
        json.WriteBoolean("allow_create_engine"u8, false);
        json.WriteBoolean("allow_sampling"u8, true);
        json.WriteBoolean("allow_logprobs"u8, true);
        json.WriteBoolean("allow_search_indices"u8, false);
        json.WriteBoolean("allow_view"u8, true);
        json.WriteBoolean("allow_fine_tuning"u8, false);
        json.WriteString("organization"u8, "*"u8);
        json.WriteNull("group"u8);
        json.WriteBoolean("is_blocking"u8, false);
        json.WriteEndObject();
        json.WriteEndArray();
        json.WriteEndObject();
    }
}
