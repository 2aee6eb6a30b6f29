using ModelHost.Docker;

namespace ModelHost.Agent.Runtimes;

/// <summary>A container engine of this node, and its images.</summary>
internal sealed class ContainerEngine : IDisposable
{
    public ContainerEngine(string name, string endpoint, NodeOptions options, NodeIdentity identity, TimeProvider time)
    {
        Name = name;
        Client = new DockerClient(new Uri(endpoint));
        Pulled = new PulledImages(identity.DataFolder, name, time);
        Images = new ImageSource(Client, Pulled, options, time);
        Packages = new PackageImages(Client, options, identity, time);
    }

    /// <summary>The runtime that starts containers on it: one of <see cref="Core.Backends.ContainerRuntimes"/>.</summary>
    public string Name { get; }

    public DockerClient Client { get; }

    /// <summary>Which of its images this node had it pull.</summary>
    public PulledImages Pulled { get; }

    public ImageSource Images { get; }

    public PackageImages Packages { get; }

    public void Dispose()
    {
        Packages.Dispose();
        Client.Dispose();
    }
}
