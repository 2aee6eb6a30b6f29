namespace ModelHost.Simulator.Options;

/// <summary>The folders of vLLM and Hugging Face that outlive a container when they are mounted.</summary>
/// <param name="Hub">Downloads: <c>HF_HOME</c>, or <c>.cache/huggingface</c> at home.</param>
/// <param name="Vllm">Compiled graphs: <c>VLLM_CACHE_ROOT</c>, or <c>.cache/vllm</c> at home.</param>
/// <param name="Offline">The hub may not be asked: <c>HF_HUB_OFFLINE</c> or <c>TRANSFORMERS_OFFLINE</c>.</param>
/// <param name="Compiles">Compiled graphs are looked for: unless <c>VLLM_DISABLE_COMPILE_CACHE</c>.</param>
internal sealed record CacheFolders(string Hub, string Vllm, bool Offline, bool Compiles)
{
    public static CacheFolders Read(IReadOnlyDictionary<string, string> environment)
    {
        var home = Path.Combine(environment.GetValueOrDefault("HOME", "/root"), ".cache");
        return new(
            environment.GetValueOrDefault("HF_HOME", Path.Combine(home, "huggingface")), environment.GetValueOrDefault("VLLM_CACHE_ROOT", Path.Combine(home, "vllm")),
            IsOn("HF_HUB_OFFLINE") || IsOn("TRANSFORMERS_OFFLINE"), !IsOn("VLLM_DISABLE_COMPILE_CACHE"));

        bool IsOn(string name) => environment.GetValueOrDefault(name)?.ToUpperInvariant() is "1" or "TRUE" or "YES" or "ON";
    }
}
