using System.Collections.Frozen;
using ModelHost.Simulator.Options;

namespace ModelHost.Simulator.Flags;

/// <summary>
/// The flags of one release of <c>vllm serve</c>. What it does not have is unknown to it, be it dropped or not yet there: passing it must
/// stop the start, as it does there.
/// </summary>
internal sealed class FlagTable
{
    /// <summary>
    /// The flags that not every release has. <c>--task</c> was deprecated in 0.13, and by the project's rule goes two releases later;
    /// <c>--sse-keep-alive-interval</c> was new in the middle of 2026.
    /// </summary>
    private static readonly Dictionary<string, Lifespan> Lifespans = new()
    {
        ["--swap-space"] = Lifespan.Until("0.18"),
        ["--task"] = Lifespan.Until("0.15"),
        ["--disable-log-requests"] = Lifespan.Until("0.17"),
        ["--shutdown-timeout"] = Lifespan.Since("0.18"),
        ["--sse-keep-alive-interval"] = Lifespan.Since("0.28"),
        ["--max-num-queued-reqs"] = Lifespan.Since("0.29"),
        ["--max-num-queued-tokens"] = Lifespan.Since("0.29"),
    };

    private static readonly string[] Dtypes = ["auto", "bfloat16", "float", "float16", "float32", "half"];

    private static readonly string[] LogLevels = ["critical", "error", "warning", "info", "debug", "trace"];

    private static readonly Flag[] Chosen =
    [
        new(["--dtype"], FlagKind.Text, Dtypes),
        new(["--runner"], FlagKind.Text, ["auto", "draft", "generate", "pooling"]),
        new(["--convert"], FlagKind.Text, ["auto", "classify", "embed", "none"]),
        new(["--prefix-caching-hash-algo"], FlagKind.Text, ["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"]),
        new(["--kv-offloading-backend"], FlagKind.Text, ["native", "lmcache"]),
        new(["--scheduling-policy"], FlagKind.Text, ["fcfs", "priority"]),
        new(["--max-lora-rank"], FlagKind.Integer, ["1", "8", "16", "32", "64", "128", "256", "320", "512"]),
        new(["--uvicorn-log-level"], FlagKind.Text, LogLevels),
        new(["--chat-template-content-format"], FlagKind.Text, ["auto", "openai", "string"]),
        new(["--data-parallel-backend", "-dpb"], FlagKind.Text, ["mp", "ray"]),
    ];

    private static readonly string[][] Texts =
    [
        ["--model"], ["--task"], ["--tokenizer"], ["--tokenizer-mode"], ["--revision"], ["--code-revision"], ["--tokenizer-revision"],
        ["--quantization", "-q"], ["--load-format"], ["--download-dir"], ["--kv-cache-dtype"], ["--generation-config"], ["--sleep-mode-backend"],
        ["--distributed-executor-backend"], ["--lora-dtype"], ["--host"], ["--uds"], ["--root-path"], ["--disable-access-log-for-endpoints"],
        ["--chat-template"], ["--response-role"], ["--tool-call-parser"], ["--tool-parser-plugin"], ["--reasoning-parser"],
        ["--fingerprint-mode"], ["--ssl-keyfile"], ["--ssl-certfile"], ["--ssl-ca-certs"], ["--otlp-traces-endpoint"],
        ["--show-hidden-metrics-for-version"], ["--master-addr"], ["--data-parallel-address", "-dpa"],
        ["--config-format"], ["--hf-config-path"], ["--logprobs-mode"], ["--model-impl"], ["--allowed-local-media-path"],
        ["--safetensors-load-strategy"], ["--attention-backend"], ["--all2all-backend"], ["--worker-cls"], ["--mm-processor-cache-type"],
    ];

    private static readonly string[][] Integers =
    [
        ["--block-size"], ["--num-gpu-blocks-override"], ["--seed"], ["--max-logprobs"], ["--max-num-seqs"], ["--stream-interval"],
        ["--tensor-parallel-size", "-tp"], ["--pipeline-parallel-size", "-pp"], ["--data-parallel-size", "-dp"],
        ["--data-parallel-size-local", "-dpl"], ["--data-parallel-start-rank", "-dpr"], ["--data-parallel-rank", "-dpn"],
        ["--data-parallel-rpc-port", "-dpp"], ["--data-parallel-supervisor-port"], ["--nnodes", "-n"], ["--node-rank", "-r"], ["--master-port"],
        ["--max-parallel-loading-workers"], ["--max-loras"], ["--max-cpu-loras"], ["--port"], ["--ssl-cert-reqs"], ["--max-log-len"],
        ["--h11-max-incomplete-event-size"], ["--h11-max-header-count"], ["--api-server-count", "-asc"], ["--shutdown-timeout"],
        ["--distributed-timeout-seconds"], ["--decode-context-parallel-size", "-dcp"], ["--max-num-partial-prefills"],
        ["--max-long-partial-prefills"], ["--long-prefill-token-threshold"], ["--max-num-queued-reqs"], ["--max-num-queued-tokens"],
    ];

    private static readonly string[][] Numbers =
    [
        ["--gpu-memory-utilization"], ["--swap-space"], ["--kv-offloading-size"], ["--cpu-offload-gb"], ["--sse-keep-alive-interval"], ["--kv-cache-metrics-sample"],
        ["--mm-processor-cache-gb"],
    ];

    private static readonly string[][] Switches =
    [
        ["--trust-remote-code"], ["--enforce-eager"], ["--enable-prefix-caching"], ["--enable-sleep-mode"], ["--enable-cumem-allocator"],
        ["--enable-chunked-prefill"], ["--async-scheduling"], ["--enable-expert-parallel", "-ep"], ["--disable-custom-all-reduce"],
        ["--enable-lora"], ["--fully-sharded-loras"], ["--disable-uvicorn-access-log"], ["--enable-log-requests"], ["--enable-log-outputs"],
        ["--disable-log-requests"], ["--disable-log-stats"], ["--enable-request-id-headers"], ["--enable-prompt-tokens-details"], ["--enable-force-include-usage"],
        ["--enable-per-request-metrics"], ["--enable-server-load-tracking"], ["--enable-tokenizer-info-endpoint"],
        ["--enable-auto-tool-choice"], ["--disable-fastapi-docs"], ["--enable-ssl-refresh"], ["--kv-cache-metrics"], ["--headless"],
        ["--data-parallel-hybrid-lb", "-dph"], ["--data-parallel-external-lb", "-dpe"], ["--skip-tokenizer-init"], ["--enable-prompt-embeds"],
        ["--disable-sliding-window"], ["--disable-cascade-attn"], ["--enable-eplb"], ["--allow-credentials"], ["--use-tqdm-on-load"],
        ["--enable-dbo"], ["--ray-workers-use-nsight"], ["--language-model-only"], ["--exclude-tools-when-tool-choice-none"], ["--trust-request-chat-template"],
        ["--return-tokens-as-token-ids"], ["--skip-mm-profiling"],
    ];

    private static readonly string[][] Jsons =
    [
        ["--override-generation-config"], ["--hf-overrides"], ["--limit-mm-per-prompt"], ["--default-chat-template-kwargs"], ["--profiler-config"],
        ["--allowed-origins"], ["--allowed-methods"], ["--allowed-headers"], ["--compilation-config", "-cc"], ["--speculative-config", "-sc"],
        ["--kv-transfer-config"], ["--kv-events-config"], ["--additional-config"], ["--model-loader-extra-config"],
        ["--structured-outputs-config"], ["--mm-processor-kwargs"], ["--pooler-config"], ["--media-io-kwargs"], ["--eplb-config"],
        ["--attention-config"],
    ];

    private static readonly string[][] Counts = [["--max-model-len"], ["--kv-cache-memory-bytes"], ["--max-num-batched-tokens"]];

    private static readonly string[][] Lists =
        [["--served-model-name"], ["--lora-modules"], ["--api-key"], ["--middleware"], ["--logits-processors"]];

    private static readonly Flag[] Known =
    [
        .. Chosen,
        new(["--hf-token"], FlagKind.OptionalText),
        .. Of(Texts, FlagKind.Text), .. Of(Integers, FlagKind.Integer), .. Of(Numbers, FlagKind.Number), .. Of(Switches, FlagKind.Switch),
        .. Of(Jsons, FlagKind.Json), .. Of(Counts, FlagKind.Count), .. Of(Lists, FlagKind.List),
    ];

    public FlagTable(Release release)
    {
        All = [.. Known.Where(flag => release.Has(Lifespans.GetValueOrDefault(flag.Names[0], Lifespan.Always)))];
        ByName = All
            .SelectMany(flag => flag.Names.Select(name => (name, flag, false))
                .Concat(flag.Kind == FlagKind.Switch ? [("--no-" + flag.Names[0][2..], flag, true)] : []))
            .ToFrozenDictionary(entry => entry.Item1, entry => (entry.Item2, entry.Item3));
    }

    /// <summary>Every flag, once.</summary>
    public IReadOnlyList<Flag> All { get; }

    /// <summary>Every spelling, the <c>--no-</c> twins of switches included.</summary>
    public FrozenDictionary<string, (Flag Flag, bool Negated)> ByName { get; }

    private static IEnumerable<Flag> Of(string[][] names, FlagKind kind) => names.Select(spellings => new Flag(spellings, kind));
}
