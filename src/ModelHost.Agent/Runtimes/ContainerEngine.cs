using ModelHost.Docker;

namespace ModelHost.Agent.Runtimes;

/// <summary>A container engine of this node, and its images.</summary>
internal sealed class ContainerEngine : IDisposable
{
    public ContainerEngine(string name, string endpoint, NodeOptions options, NodeIdentity identity, TimeProvider time)
    {
        Name = name;
        Client = new DockerClient(new Uri(endpoint));
        Images = new ImageSource(Client, options, time);
        Packages = new PackageImages(Client, options, identity, time);
    }

    /// <summary>The runtime that starts containers on it: one of <see cref="Core.Backends.ContainerRuntimes"/>.</summary>
    public string Name { get; }

    public DockerClient Client { get; }

    public ImageSource Images { get; }

    public PackageImages Packages { get; }

    public void Dispose()
    {
        Packages.Dispose();
        Client.Dispose();
    }
}
