using ModelHost.Agent.Runtimes;
using ModelHost.Core.Backends;

namespace ModelHost.TestKit;

/// <summary>The surroundings of one node: a data folder, engine ports, and if wanted simulated GPUs with an <c>nvidia-smi</c> that shows them.</summary>
public sealed class TestNode : IDisposable
{
    private readonly string? _gpuTools;

    /// <summary>Makes the surroundings.</summary>
    /// <param name="docker">The engine to use; null: a socket that does not exist.</param>
    /// <param name="gpus">Number of simulated GPUs.</param>
    /// <param name="gpuMib">Memory of each, in MiB.</param>
    public TestNode(RealDocker? docker = null, int gpus = 0, int gpuMib = 81559)
    {
        Data = Directory.CreateTempSubdirectory("mh-").FullName;
        DockerHost = docker is { Runtime: ContainerRuntimes.Docker } ? docker.Endpoint.OriginalString : $"unix://{Data}/no-docker.sock";
        PodmanHost = docker is { Runtime: ContainerRuntimes.Podman } ? docker.Endpoint.OriginalString : "";
        Ports = TestPorts.EngineRange();
        NvidiaSmi = Path.Combine(Data, "no-nvidia-smi");
        if (gpus == 0)
            return;
        // below /dev/shm: containers see it through host IPC
        GpuFolder = $"/dev/shm/{Path.GetFileName(Data)}";
        _gpuTools = Directory.CreateTempSubdirectory("mh-smi-").FullName;
        var bench = Path.Combine(RealDocker.RepositoryRoot, "tests", "bench");
        Directory.CreateDirectory(Path.Combine(GpuFolder, "holds"));
        File.WriteAllLines(Path.Combine(GpuFolder, "gpus.csv"),
            Enumerable.Range(0, gpus).Select(i => $"{i},GPU-{Guid.NewGuid()},NVIDIA H100 80GB HBM3,{gpuMib}"));
        NvidiaSmi = Path.Combine(_gpuTools, "nvidia-smi");
        File.Copy(Path.Combine(bench, "nvidia-smi"), NvidiaSmi);
        File.WriteAllText(Path.Combine(_gpuTools, "gpu-dir"), GpuFolder + "\n");
    }

    /// <summary>The data folder.</summary>
    public string Data { get; }

    /// <summary>Folder of the simulated GPUs, for <c>VLLM_SIM_GPU_DIR</c>; empty: there are none.</summary>
    public string GpuFolder { get; } = "";

    /// <summary>Docker Engine API endpoint.</summary>
    public string DockerHost { get; }

    /// <summary>Endpoint of Podman; empty: there is none.</summary>
    public string PodmanHost { get; set; }

    /// <summary>The <c>nvidia-smi</c> of this node.</summary>
    public string NvidiaSmi { get; }

    /// <summary>Loopback ports for engines.</summary>
    public (int First, int Last) Ports { get; }

    /// <summary>Where the public ports of deployments are listened on. Default: nowhere, since many tests use the same ones side by side.</summary>
    public string DirectListen { get; set; } = "";

    /// <summary>The node's settings as <c>Section:Key=value</c>.</summary>
    public string[] Configuration =>
    [
        $"Node:DockerHost={DockerHost}", $"Node:PodmanHost={PodmanHost}", $"Node:NvidiaSmi={NvidiaSmi}", $"Node:EnginePortFirst={Ports.First}", $"Node:EnginePortLast={Ports.Last}",
        "Node:ProcessRuntime=true", "Node:StopGrace=00:00:10", "Node:MetricsInterval=00:00:01", "Releases:Url=", $"Node:DirectListen={DirectListen}",
        .. Downloads,
    ];

    /// <summary>How downloads are made, as <c>Downloads:Key=value</c>: by default from servers of this machine too, and tried again soon.</summary>
    public IReadOnlyList<string> Downloads { get; set; } = ["Downloads:AllowedNetworks=127.0.0.0/8", "Downloads:RetryDelay=00:00:00.010"];

    /// <summary>The process of the only engine of a node, which is alive.</summary>
    /// <param name="data">The node's data folder.</param>
    public static int EnginePid(string data) =>
        ProcessSidecar.Read(Directory.GetFiles(Path.Combine(data, "engines"), "*.json").Single()) is { IsAlive: true, Pid: { } pid } ? pid : throw new InvalidOperationException("its engine is not alive");

    private static void Delete(string folder)
    {
        var until = TimeProvider.System.GetTimestamp() + (30 * TimeProvider.System.TimestampFrequency);
        while (Directory.Exists(folder))
        {
            try
            {
                Directory.Delete(folder, recursive: true);
            }
            catch (IOException) when (TimeProvider.System.GetTimestamp() < until)
            {
                // a process that is just being killed made another file in it, or a node removes what was deleted there too
                Thread.Sleep(20);
            }
        }
    }

    /// <summary>Lets <c>nvidia-smi</c> play a card or a driver in trouble, as that script lists them; empty: all is well again.</summary>
    public void SmiPlays(string what)
    {
        // replaced whole: the script may be reading it
        var path = Path.Combine(GpuFolder, "smi-plays");
        File.WriteAllText(path + ".new", what + "\n");
        File.Move(path + ".new", path, overwrite: true);
    }

    /// <summary>Removes the keys with which a control plane that has ended encrypted what it stored.</summary>
    public void LoseKeys()
    {
        foreach (var key in Directory.GetFiles(Path.Combine(Data, "keys"), "key-*.xml"))
            File.Delete(key);
    }

    /// <summary>Ends the processes that a failed test left behind, and removes the folders.</summary>
    public void Dispose()
    {
        var engines = Path.Combine(Data, "engines");
        foreach (var sidecar in Directory.Exists(engines) ? Directory.GetFiles(engines, "*.json") : [])
        {
            if (ProcessSidecar.Read(sidecar) is { IsAlive: true, Pid: { } pid })
                Libc.SignalGroup(pid, Libc.SigKill);
        }
        foreach (var folder in (string?[])[Data, GpuFolder, _gpuTools])
        {
            if (folder is { Length: > 0 })
                Delete(folder);
        }
    }
}
