using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Server;

/// <summary>What the model can do, which decides about its routes: guessed from its name where the flags leave it open.</summary>
/// <param name="Generates">It writes text.</param>
/// <param name="Transcribes">It hears speech.</param>
/// <param name="Embeds">It makes vectors of texts.</param>
/// <param name="Classifies">It labels texts.</param>
internal sealed record ModelTasks(bool Generates, bool Transcribes, bool Embeds, bool Classifies)
{
    /// <summary>Models for speech that do nothing else.</summary>
    private static readonly string[] OnlySpeech = ["whisper"];

    private static readonly string[] Speech = [.. OnlySpeech, "voxtral", "granite-speech", "qwen3-asr", "canary"];

    private static readonly string[] Classifiers = ["classif", "sentiment", "reranker", "cross-encoder", "reward"];

    /// <summary>The tasks under vLLM's names.</summary>
    public IEnumerable<string> Names =>
        new (string Name, bool Can)[] { ("generate", Generates), ("transcription", Transcribes), ("embed", Embeds), ("classify", Classifies) }
            .Where(task => task.Can).Select(task => task.Name);

    public static ModelTasks Of(ServerOptions options)
    {
        if (!options.Pools)
            return new(!Named(options, OnlySpeech), Named(options, Speech), false, false);
        var classifies = options.Conversion is { } conversion ? conversion == "classify" : Named(options, Classifiers);
        return new(false, false, !classifies, classifies);
    }

    /// <summary>The answer says when each sentence was spoken.</summary>
    public static bool TellsTimes(ServerOptions options) => Named(options, OnlySpeech);

    private static bool Named(ServerOptions options, string[] parts) =>
        Array.Exists(parts, part => options.Model.Contains(part, StringComparison.OrdinalIgnoreCase));
}
