using System.Text;
using ModelHost.TestKit;

namespace ModelHost.Tests.Backends;

/// <summary>A gallery of small backends: <c>plain</c>, and <c>echo</c>, which has builds for several kinds of machines.</summary>
internal sealed class BackendGallery : IAsyncDisposable
{
    private readonly FileServer _server;

    private BackendGallery(FileServer server) => _server = server;

    /// <summary>Where its index is.</summary>
    public Uri Url => At("index.yaml");

    /// <summary>Host and port of its server.</summary>
    public string Authority => _server.Address.Authority;

    /// <summary>Settings of a control plane that knows it alone, and asks for it anew after a second.</summary>
    public string[] Configuration =>
        ["Galleries:Backends:0:Name=own", $"Galleries:Backends:0:Url={Url}", "Galleries:CacheTime=00:00:01", $"Downloads:InsecureRegistries={Authority}"];

    public static async Task<BackendGallery> StartAsync()
    {
        var gallery = new BackendGallery(await FileServer.StartAsync());
        gallery.Offer("1.0");
        foreach (var build in (string[])["cpu", "cuda", "rocm"])
            gallery.Put($"{build}-echo/run.sh", $"#!/bin/sh\n# {build}\n");
        gallery.Put("releases/latest", """{"tag_name":"v0.11.0"}""");
        return gallery;
    }

    /// <summary>The address of a file.</summary>
    public Uri At(string path) => new(_server.Url("/" + path));

    /// <summary>A control plane with this gallery.</summary>
    public Task<ControlPlane> HostAsync(TestNode? node = null) => ControlPlane.StartAsync(node, "http://127.0.0.1:0", null, Configuration);

    /// <summary>Offers a version of <c>plain</c> from now on.</summary>
    public void Offer(string version)
    {
        Put("plain/run.sh", $"#!/bin/sh\n# {version}\n");
        Serve($$$"""
            - {name: plain, alias: simple, version: '{{{version}}}', uri: '{{{At("plain/run.sh")}}}', description: A plain one, license: mit, tags: [text]}
            - {name: echo, capabilities: {default: cpu-echo, nvidia: cuda-echo, amd: rocm-echo}}
            - &build {name: cpu-echo, alias: echo, version: '2.0', uri: '{{{At("cpu-echo/run.sh")}}}'}
            - {<<: *build, name: cuda-echo, uri: '{{{At("cuda-echo/run.sh")}}}'}
            - {<<: *build, name: rocm-echo, uri: '{{{At("rocm-echo/run.sh")}}}'}
            """);
    }

    /// <summary>Serves another index from now on.</summary>
    public void Serve(string index) => Put("index.yaml", index);

    /// <summary>Takes a file away.</summary>
    public void Break(string path)
    {
        for (var i = 0; i < 20; i++)
            _server.Files["/" + path].Statuses.Enqueue(404);
    }

    /// <summary>Lets a file's download hang.</summary>
    public void Hang(string path, int after) => _server.Files["/" + path].HoldAfter = after;

    /// <summary>Lets a tag of a registry lead to a manifest.</summary>
    public void Manifest(string repository, string tag, string manifest) => Put($"v2/{repository}/manifests/{tag}", manifest);

    private void Put(string path, string text) => _server.Put("/" + path, Encoding.UTF8.GetBytes(text));

    public ValueTask DisposeAsync() => _server.DisposeAsync();
}
