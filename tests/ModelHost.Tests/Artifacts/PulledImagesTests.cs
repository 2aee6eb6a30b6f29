using ModelHost.Agent.Runtimes;

namespace ModelHost.Tests.Artifacts;

/// <summary>What a node keeps of the images that it pulled, where the file is not as it was written.</summary>
public sealed class PulledImagesTests : IDisposable
{
    private readonly string _data = Directory.CreateTempSubdirectory("mh-").FullName;

    [Theory]
    [InlineData("")]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("none of ours")]
    [InlineData("""{"a:1":null}""")]
    [InlineData("""{"a:1":{"id":null}}""")]
    public void A_file_that_makes_no_sense_knows_of_no_image(string content)
    {
        var folder = Directory.CreateDirectory(Path.Combine(_data, "images")).FullName;
        File.WriteAllText(Path.Combine(folder, "docker.json"), content);
        var images = new PulledImages(_data, "docker", TimeProvider.System);

        images.Find("a:1", "sha256:1").ShouldBeNull();
        images.Note("a:1", "sha256:1");

        new PulledImages(_data, "docker", TimeProvider.System).Find("a:1", "sha256:1").ShouldNotBeNull().Id.ShouldBe("sha256:1");
    }

    public void Dispose() => Directory.Delete(_data, recursive: true);
}
