using System.ComponentModel.DataAnnotations;
using ModelHost.Agent;
using ModelHost.Agent.Backends;
using ModelHost.Protocol;

namespace ModelHost.Tests.Backends;

/// <summary>The gRPC backends that a node has.</summary>
public sealed class InstalledBackendsTests : IDisposable
{
    private readonly string _data = Directory.CreateTempSubdirectory("mh-").FullName;
    private readonly NodeOptions _options = new();

    public void Dispose() => Directory.Delete(_data, recursive: true);

    [Fact]
    public void Folders_with_a_program_and_entries_of_the_configuration_are_backends()
    {
        Install("llama-cpp", """{"alias": "llm"}""");
        Install("not-runnable", "{}", isProgram: false);
        Install("garbled", "{");
        Install("vllm", "{}"); // the name of one that is built in
        Install("boxed", "{}"); // hidden by the configuration
        Directory.CreateDirectory(Path.Combine(_data, "backends", "empty"));
        _options.Backends["boxed"] = new NodeBackend { Image = "a/b:1" };
        _options.Backends["elsewhere"] = new NodeBackend { Address = "10.0.0.1:50051", Token = "secret" };
        var report = new NodeReport();

        Backends().Write(report);

        report.Backends.Select(backend => (backend.Name, backend.Runtime, backend.Alias)).ShouldBe(
        [
            ("boxed", "docker", ""), ("elsewhere", "external", ""), ("garbled", "process", ""),
            ("llama-cpp", "process", "llm"), ("llama-cpp", "process", "llama"), ("llama-cpp", "process", "go-llama"),
        ], ignoreOrder: true);
        report.ToString().ShouldNotContain("secret");
    }

    [Fact]
    public void A_name_leads_to_a_folder_by_itself_by_another_and_by_an_alias()
    {
        Install("cuda12-llama-cpp", """{"alias": "llama-cpp"}""");
        Install("meta", """{"meta_backend_for": "cuda12-llama-cpp"}""", isProgram: false);
        Install("dangling", """{"meta_backend_for": "nobody"}""", isProgram: false);
        Install("evil", """{"meta_backend_for": "../../etc"}""", isProgram: false);
        var folder = Path.Combine(_data, "backends", "cuda12-llama-cpp");

        foreach (var name in (string[])["cuda12-llama-cpp", "llama-cpp", "llama", "meta"])
            Backends().Find(name).ShouldNotBeNull(name).Folder.ShouldBe(folder);
        foreach (var name in (string[])["dangling", "evil", "nobody", ""])
            Backends().Find(name).ShouldBeNull(name);
    }

    [Theory]
    [InlineData("a", "", "", "needs an Image or an Address")]
    [InlineData("a", "x:1", "127.0.0.1:1", "needs an Image or an Address")]
    [InlineData("a", "", "127.0.0.1", "not HOST:PORT")]
    [InlineData("a", "", "http://127.0.0.1:1", "not HOST:PORT")]
    [InlineData("a", "", "user@host:1", "not HOST:PORT")]
    [InlineData("a", "", "host:1/path", "not HOST:PORT")]
    [InlineData("a", "", "host:99999", "not HOST:PORT")]
    [InlineData("a", "UPPER:1", "", "not repository:tag")]
    [InlineData("a", "image", "", "not repository:tag")]
    [InlineData("vllm", "x:1", "", "is no name for a backend")]
    [InlineData("a/b", "x:1", "", "is no name for a backend")]
    [InlineData("a", "host.example:5000/x/y:1", "", null)]
    [InlineData("a", "", "backend.example:50051", null)]
    [InlineData("a", "", "[::1]:50051", null)]
    public void Entries_of_the_configuration_are_checked(string name, string image, string address, string? fault)
    {
        _options.Backends[name] = new NodeBackend { Image = image, Address = address };
        var faults = new List<ValidationResult>();

        Validator.TryValidateObject(_options, new ValidationContext(_options), faults, validateAllProperties: true).ShouldBe(fault is null);

        string.Join(' ', faults.Select(found => found.ErrorMessage)).ShouldContain(fault ?? "");
    }

    private InstalledBackends Backends() => new(_data, _options, TimeProvider.System);

    private void Install(string name, string metadata, bool isProgram = true)
    {
        var folder = Directory.CreateDirectory(Path.Combine(_data, "backends", name)).FullName;
        File.WriteAllText(Path.Combine(folder, "metadata.json"), metadata);
        if (!isProgram)
            return;
        File.WriteAllText(Path.Combine(folder, "run.sh"), "#!/bin/sh\n");
        File.SetUnixFileMode(Path.Combine(folder, "run.sh"), UnixFileMode.UserRead | UnixFileMode.UserExecute);
    }
}
