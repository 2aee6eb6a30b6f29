using ModelHost.Core.Engines;

namespace ModelHost.Tests.Engines;

public sealed class EngineImageTests
{
    [Theory]
    [InlineData("0.9.1", "v0.9.1")]
    [InlineData(" 0.9.1 ", "v0.9.1")]
    [InlineData("0.10.0rc1", "v0.10.0rc1")]
    [InlineData("0.9.1-cu129", "v0.9.1-cu129")]
    [InlineData("v0.9.1", "v0.9.1")]
    [InlineData("nightly", "nightly")]
    [InlineData("Nightly", "nightly")]
    [InlineData("latest", "latest")]
    [InlineData("0123456789abcdef0123456789abcdef01234567", "nightly-0123456789abcdef0123456789abcdef01234567")]
    [InlineData("0123456789ABCDEF0123456789ABCDEF01234567", "0123456789ABCDEF0123456789ABCDEF01234567")]
    [InlineData("my-build", "my-build")]
    [InlineData("2024-build", "2024-build")]
    public void A_version_has_a_tag(string version, string tag) => EngineImage.Tag(version).ShouldBe(tag);

    [Theory]
    [InlineData("nightly", true)]
    [InlineData("latest", true)]
    [InlineData("v0.9.1", false)]
    [InlineData("nightly-0123456789abcdef0123456789abcdef01234567", false)]
    public void Moving_tags_are_known(string tag, bool moving) => EngineImage.IsMoving(tag).ShouldBe(moving);

    [Theory]
    [InlineData("0.9.1", true)]
    [InlineData("v0.9.1-cu129_x", true)]
    [InlineData("", false)]
    [InlineData("-x", false)]
    [InlineData(".x", false)]
    [InlineData("a b", false)]
    [InlineData("a/b", false)]
    [InlineData("a:b", false)]
    [InlineData("a@sha256", false)]
    [InlineData("a\n", false)]
    [InlineData("ä", false)]
    public void What_can_be_a_tag_is_known(string version, bool valid) => EngineImage.IsValidVersion(version).ShouldBe(valid);

    [Fact]
    public void A_tag_has_at_most_128_characters()
    {
        EngineImage.IsValidVersion(new string('a', 128)).ShouldBeTrue();
        EngineImage.IsValidVersion(new string('a', 129)).ShouldBeFalse();
    }

    [Fact]
    public void The_newest_release_is_found_by_number_and_not_by_letter()
    {
        EngineImage.Newest(["v0.9.2", "v0.10.0", "v0.10.0-cu129", "nightly", "latest", "0.99.0", "vX", "v0.9.10"]).ShouldBe("v0.10.0");
        EngineImage.Newest(["v0.10.0-cu129", "v0.9.2"]).ShouldBe("v0.10.0-cu129");
        EngineImage.Newest(["nightly", "v99999999999.1"]).ShouldBeNull();
        EngineImage.Newest([]).ShouldBeNull();
    }

    [Theory]
    [InlineData("v0.9.1", "0.9.1")]
    [InlineData("nightly", "nightly")]
    [InlineData("v", "v")]
    [InlineData("vision", "vision")]
    public void A_tag_shows_its_version(string tag, string version) => EngineImage.VersionOf(tag).ShouldBe(version);

    [Theory]
    [InlineData("vllm/vllm-openai", true)]
    [InlineData("busybox", true)]
    [InlineData("registry.example/team/vllm-openai", true)]
    [InlineData("registry.example:5000/vllm", true)]
    [InlineData("Registry.Example:5000/vllm", true)]
    [InlineData("127.0.0.1:5000/team/engine", true)]
    [InlineData("[::1]:5000/team/engine", true)]
    [InlineData("localhost/a__b/c--d.e", true)]
    [InlineData("", false)]
    [InlineData("https://registry.example/vllm", false)]
    [InlineData("user:word@registry.example/vllm", false)]
    [InlineData("registry.example/vllm:v1", false)]
    [InlineData("registry.example/vllm@sha256:0123", false)]
    [InlineData("registry.example/Team/vllm", false)]
    [InlineData("registry.example:port/vllm", false)]
    [InlineData("registry.example/", false)]
    [InlineData("/vllm", false)]
    [InlineData("a//b", false)]
    [InlineData("a/../b", false)]
    [InlineData("-a/b", false)]
    [InlineData("a/b ", false)]
    [InlineData("a/b\n", false)]
    [InlineData("a/b?x=1", false)]
    public void What_can_be_a_repository_is_known(string repository, bool valid) => EngineImage.IsValidRepository(repository).ShouldBe(valid);

    [Fact]
    public void A_repository_has_at_most_255_characters()
    {
        EngineImage.IsValidRepository(new string('a', 255)).ShouldBeTrue();
        EngineImage.IsValidRepository(new string('a', 256)).ShouldBeFalse();
    }

    [Theory]
    [InlineData("vllm/vllm-openai:v1", "docker.io")]
    [InlineData("busybox:1", "docker.io")]
    [InlineData("registry.example/vllm:v1", "registry.example")]
    [InlineData("127.0.0.1:5000/team/engine:v1", "127.0.0.1:5000")]
    [InlineData("localhost/vllm:v1", "localhost")]
    public void An_image_comes_from_a_registry(string image, string registry) => EngineImage.RegistryOf(image).ShouldBe(registry);
}
