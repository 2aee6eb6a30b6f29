using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Gpu;
using ModelHost.Simulator.Metrics;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;
using ModelHost.Simulator.Sleep;

namespace ModelHost.Simulator.Server;

/// <summary>The routes that a server with these options has; whether the model generates or pools decides about a part of them.</summary>
internal static class RouteTable
{
    private static readonly string[] Get = ["GET"];

    private static readonly string[] Post = ["POST"];

    public static IReadOnlyList<Route> Make(ServerOptions options, MemoryPlan plan, Engine engine, SleepMode sleep, MetricsPage metrics, ServerLog log, TimeProvider time)
    {
        var parser = new RequestParser(options, plan, engine.Adapters);
        var small = new SmallRoutes(options, plan, parser, engine, metrics, time);
        var writer = new AnswerWriter(options, time);
        var generation = new GenerationRoutes(options, parser, engine, writer, time);
        var responses = new ResponsesRoutes(options, parser, engine, writer, time);
        var audio = new AudioRoutes(options, parser, engine, writer, time);
        var tasks = ModelTasks.Of(options);
        var answers = new PoolingAnswers(options, parser, engine, writer, time);
        var embedding = new EmbeddingRoutes(parser, answers, tasks);
        var cohere = new CohereRoutes(parser, answers, tasks);
        var classify = new ClassifyRoutes(parser, answers, tasks);
        var lora = new LoraRoutes(options, engine.Adapters, log);
        var score = new ScoreRoutes(options, parser, answers);
        Route[] common =
        [
            new("/health", Get, small.HealthAsync),
            new("/load", Get, small.LoadAsync),
            new("/version", Get, small.VersionAsync),
            new("/metrics", Get, small.MetricsAsync),
            new("/ping", ["GET", "POST"], small.HealthAsync),
            new("/tokenize", Post, small.TokenizeAsync),
            new("/detokenize", Post, small.DetokenizeAsync),
            new("/v1/models", Get, small.ModelsAsync),
        ];
        Route[] optional =
        [
            .. options.Flags.Switch("enable_tokenizer_info_endpoint") ? new Route[] { new("/tokenizer_info", Get, small.TokenizerInfoAsync) } : [],
            .. options.DevMode ? new DevRoutes(options, engine, sleep).All() : [],
            .. options.LoraUpdates
                ? new Route[] { new("/v1/load_lora_adapter", Post, lora.LoadAsync), new("/v1/unload_lora_adapter", Post, lora.UnloadAsync) } : [],
        ];
        Route[] generating =
        [
            new("/v1/chat/completions", Post, generation.ChatAsync),
            new("/v1/completions", Post, generation.CompletionAsync),
            new("/v1/responses", Post, responses.CreateAsync),
            new("/v1/responses/{response_id}", Get, responses.GetAsync),
            new("/v1/responses/{response_id}/cancel", Post, responses.CancelAsync),
            new("/inference/v1/generate", Post, generation.TokensAsync),
            new("/v1/messages", Post, generation.MessagesAsync),
            new("/v1/messages/count_tokens", Post, generation.CountTokensAsync),
        ];
        Route[] hearing =
        [
            new("/v1/audio/transcriptions", Post, audio.TranscribeAsync),
            new("/v1/audio/translations", Post, audio.TranslateAsync),
        ];
        Route[] pooling =
        [
            new("/v1/embeddings", Post, embedding.EmbedAsync),
            new("/v2/embed", Post, cohere.EmbedAsync),
            new("/classify", Post, classify.ClassifyAsync),
            new("/pooling", Post, classify.PoolAsync),
            .. Spellings(score.ScoreAsync, "/score", "/v1/score"),
            .. Spellings(score.RerankAsync, "/rerank", "/v1/rerank", "/v2/rerank"),
        ];
        Route[] inference =
        [
            .. tasks.Generates ? generating : [], .. tasks.Transcribes ? hearing : [], .. tasks.Embeds || tasks.Classifies ? pooling : [],
        ];
        return [.. common, .. optional, .. inference, new("/invocations", Post, InvocationRoute.Among(inference, tasks).AnswerAsync)];
    }

    private static IEnumerable<Route> Spellings(RequestDelegate handle, params string[] paths) => paths.Select(path => new Route(path, Post, handle));
}
