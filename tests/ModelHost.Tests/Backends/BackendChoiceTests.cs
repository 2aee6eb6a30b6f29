using ModelHost.Core.Galleries;
using ModelHost.Features.Backends;
using ModelHost.Protocol;

namespace ModelHost.Tests.Backends;

/// <summary>Which build a node gets.</summary>
public sealed class BackendChoiceTests
{
    private static readonly Dictionary<string, string> Builds = new()
    {
        ["default"] = "cpu-x",
        ["nvidia"] = "cuda12-x",
        ["nvidia-cuda-13"] = "cuda13-x",
        ["amd"] = "rocm-x",
        ["nvidia-l4t"] = "l4t-x",
    };

    [Theory]
    [InlineData("nvidia-cuda-13", "cuda13-x")]
    [InlineData("nvidia-cuda-12", "cuda12-x")]
    [InlineData("nvidia", "cuda12-x")]
    [InlineData("NVIDIA", "cuda12-x")]
    [InlineData("nvidia-l4t-cuda-12", "l4t-x")]
    [InlineData("amd", "rocm-x")]
    [InlineData("intel", "cpu-x")]
    [InlineData("metal", "cpu-x")]
    [InlineData("default", "cpu-x")]
    public void Build_is_that_of_the_capability_or_a_wider_one_or_the_default(string capability, string build) =>
        BackendChoice.Resolve(Builds, capability).ShouldBe(build);

    [Theory]
    [InlineData("vllm/vllm-openai:latest", "0.19.0", "v0.19.0")]
    [InlineData("vllm/vllm-openai-cpu:latest-x86_64", "0.19.0", "v0.19.0-x86_64")]
    [InlineData("vllm/vllm-openai-cpu:latest-x86_64", "v0.19.0-x86_64", "v0.19.0-x86_64")]
    [InlineData("ghcr.io/huggingface/text-embeddings-inference:cuda-latest", "1.9", "cuda-1.9")]
    [InlineData("ghcr.io/huggingface/text-embeddings-inference:cuda-latest", "cuda-1.9", "cuda-1.9")]
    [InlineData("ghcr.io/ggml-org/llama.cpp:server-cuda", "server-cuda-b6000", "server-cuda-b6000")]
    public void Version_of_an_image_is_that_of_its_variant(string image, string version, string tag) => ImageName.TagOf(image, version).ShouldBe(tag);

    [Fact]
    public void Without_a_default_the_processor_does_and_without_that_nothing()
    {
        BackendChoice.Resolve(new Dictionary<string, string> { ["cpu"] = "c", ["amd"] = "a" }, "nvidia").ShouldBe("c");
        BackendChoice.Resolve(new Dictionary<string, string> { ["amd"] = "a" }, "nvidia").ShouldBeNull();
        // an L4T machine has another processor
        BackendChoice.Resolve(new Dictionary<string, string> { ["nvidia"] = "n" }, "nvidia-l4t-cuda-12").ShouldBeNull();
    }

    [Theory]
    [InlineData("cuda12-vllm", "quay.io/go-skynet/local-ai-backends:latest-gpu-nvidia-cuda-12-vllm", "nvidia-cuda-12", true)]
    [InlineData("cuda12-vllm", "quay.io/go-skynet/local-ai-backends:latest-gpu-nvidia-cuda-12-vllm", "default", false)]
    [InlineData("rocm-vllm", "", "amd", true)]
    [InlineData("rocm-vllm", "", "nvidia", false)]
    [InlineData("intel-sycl-f16-llama-cpp", "", "intel", true)]
    [InlineData("metal-mlx", "", "nvidia", false)]
    [InlineData("nvidia-l4t-arm64-llama-cpp", "", "nvidia-l4t-cuda-12", true)]
    [InlineData("nvidia-l4t-arm64-llama-cpp", "", "nvidia-cuda-12", false)]
    [InlineData("cpu-whisper", "", "nvidia", true)]
    [InlineData("cpu-whisper-amd64", "", "default", true)]
    [InlineData("local-store", "", "amd", true)]
    public void Builds_are_offered_where_they_run(string name, string uri, string capability, bool isOffered) =>
        BackendChoice.IsFor(new GalleryEntry { Name = name, Uri = uri }, capability).ShouldBe(isOffered);

    [Theory]
    [InlineData("NVIDIA H100 80GB HBM3", 81559, "580.95.05", "nvidia-smi", "nvidia-cuda-13")]
    [InlineData("NVIDIA H100 80GB HBM3", 81559, "550.54.15", "nvidia-smi", "nvidia-cuda-12")]
    [InlineData("Tesla K80", 12000, "470.1", "nvidia-smi", "nvidia")]
    [InlineData("NVIDIA T4", 15360, "", "nvidia-smi", "nvidia")]
    [InlineData("NVIDIA GB10", 122_000, "580.95.05", "unified", "nvidia-l4t-cuda-13")]
    [InlineData("Orin (nvgpu)", 62_000, "540.4.0", "unified", "nvidia-l4t-cuda-12")]
    [InlineData("NVIDIA GeForce GT 1030", 2048, "550.1", "nvidia-smi", "default")]
    [InlineData("AMD Instinct MI300X", 196_608, "", "rocm-smi", "amd")]
    [InlineData("Intel(R) Data Center GPU Max 1550", 65_536, "", "xpu-smi", "intel")]
    public void Capability_of_a_node_is_told_by_its_GPUs_and_their_driver(string name, long mib, string driver, string source, string capability)
    {
        var report = new NodeReport { GpuDriver = driver, Gpus = { new Gpu { Name = name, MemoryTotalBytes = mib << 20, Source = source } } };

        NodeCapability.Of("gpu-1", report, new Dictionary<string, string>()).ShouldBe(capability);
        NodeCapability.Of("gpu-1", report, new Dictionary<string, string> { ["gpu-1"] = "intel", ["*"] = "amd" }).ShouldBe("intel");
        NodeCapability.Of("gpu-1", report, new Dictionary<string, string> { ["gpu-2"] = "intel", ["*"] = "amd" }).ShouldBe("amd");
        NodeCapability.Of(new NodeReport()).ShouldBe("default");
    }

    [Theory]
    [InlineData("vllm/vllm-openai:v0.11.0", "vllm/vllm-openai:v0.11.0")]
    [InlineData("oci://docker.io/vllm/vllm-openai:v0.11.0", "vllm/vllm-openai:v0.11.0")]
    [InlineData("oci://docker.io/library/nginx", "nginx:latest")]
    [InlineData("oci://localhost:5000/a/b:1", "localhost:5000/a/b:1")]
    [InlineData("ghcr.io/ggml-org/llama.cpp:server", "ghcr.io/ggml-org/llama.cpp:server")]
    public void Images_have_the_names_that_engines_give_them(string uri, string name)
    {
        ImageName.Of(uri).ShouldBe(name);
        $"{ImageName.Repository(name)}:{ImageName.Tag(name)}".ShouldBe(name);
    }
}
