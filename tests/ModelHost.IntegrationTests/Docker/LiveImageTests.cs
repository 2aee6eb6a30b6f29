using System.Net;
using ModelHost.Docker;

namespace ModelHost.IntegrationTests.Docker;

public sealed class LiveImageTests(RealDockerFixture fixture)
{
    private const string Busybox = "modelhost-test/busybox:1";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Images_are_listed_and_inspected()
    {
        using var client = new DockerClient(fixture.Docker.Endpoint);

        var listed = (await client.ListImagesAsync(Busybox, Ct)).ShouldHaveSingleItem();
        var image = await client.InspectImageAsync(Busybox, Ct);

        listed.Id.ShouldBe(image.Id);
        listed.RepoTags.ShouldContain(Busybox);
        listed.SizeBytes.ShouldBeGreaterThan(1_000_000);
        image.RepoTags.ShouldContain(Busybox);
        image.Architecture.ShouldNotBeEmpty();
        image.Created.ShouldNotBeNull().ToUnixTimeSeconds().ShouldBe(listed.Created.ToUnixTimeSeconds());
        (await client.InspectImageAsync(image.Id, Ct)).Id.ShouldBe(image.Id);
        (await client.ListImagesAsync(null, Ct)).ShouldContain(i => i.Id == image.Id);
        (await client.ListImagesAsync("no/such:*", Ct)).ShouldBeEmpty();
    }

    [Fact]
    public async Task A_saved_image_is_loaded_again()
    {
        using var client = new DockerClient(fixture.Docker.Endpoint);
        var name = $"modelhost-test/loaded-{Guid.NewGuid():N}";
        var folder = Directory.CreateTempSubdirectory("mhd");
        var file = Path.Combine(folder.FullName, "image.tar");

        await client.TagImageAsync(Busybox, name, "1", Ct);
        await fixture.Docker.CliAsync(Ct, "save", "-o", file, $"{name}:1");
        await fixture.Docker.CliAsync(Ct, "rmi", $"{name}:1");
        (await client.ListImagesAsync($"{name}:1", Ct)).ShouldBeEmpty();
        await using (var tar = File.OpenRead(file))
            await client.LoadImageAsync(tar, Ct);
        var loaded = await client.InspectImageAsync($"{name}:1", Ct);
        await fixture.Docker.CliAsync(Ct, "rmi", $"{name}:1");
        folder.Delete(recursive: true);

        loaded.Id.ShouldBe((await client.InspectImageAsync(Busybox, Ct)).Id);
    }

    [Fact]
    public async Task What_is_no_image_is_not_loaded()
    {
        using var client = new DockerClient(fixture.Docker.Endpoint);
        using var tar = new MemoryStream("this is no tar file"u8.ToArray());

        (await Should.ThrowAsync<DockerException>(client.LoadImageAsync(tar, Ct))).EngineMessage.ShouldNotBeEmpty();
    }

    [Fact]
    public async Task Pulling_an_absent_image_fails_with_the_engines_words()
    {
        using var client = new DockerClient(fixture.Docker.Endpoint);

        // port 1 of this machine: refused wherever the test runs, without a network
        var failure = await Should.ThrowAsync<DockerException>(client.PullImageAsync("127.0.0.1:1/no/such", "1", _ => { }, Ct));

        failure.StatusCode.ShouldBeOneOf(HttpStatusCode.InternalServerError, HttpStatusCode.NotFound, HttpStatusCode.OK);
        failure.EngineMessage.ShouldContain("127.0.0.1:1");
    }
}
