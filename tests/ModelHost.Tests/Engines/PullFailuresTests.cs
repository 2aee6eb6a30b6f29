using ModelHost.Core.Engines;

namespace ModelHost.Tests.Engines;

public sealed class PullFailuresTests
{
    private const string Image = "registry.example:5000/team/engine:v1.0.0";

    /// <summary>Words of Docker 20.10 and 29 (containerd image store) and of Podman 4.</summary>
    [Theory]
    [InlineData("image_not_found", "manifest for registry.example:5000/team/engine:v1.0.0 not found: manifest unknown: manifest unknown")]
    [InlineData("image_not_found", "manifest unknown")]
    [InlineData("image_not_found", "repository registry.example:5000/team/engine not found: name unknown: The repository does not exist")]
    [InlineData("image_not_found", "pull access denied for team/engine, repository does not exist or may require 'docker login': denied: requested access to the resource is denied")]
    [InlineData("image_not_found", "failed to resolve reference \"registry.example:5000/team/engine:v1.0.0\": registry.example:5000/team/engine:v1.0.0: not found")]
    [InlineData("image_not_found", "reading manifest v1.0.0 in registry.example:5000/team/engine: manifest unknown")]
    [InlineData("image_not_found", "no matching manifest for linux/arm64/v8 in the manifest list entries")]
    [InlineData("registry_auth", "Head \"https://registry.example:5000/v2/team/engine/manifests/v1.0.0\": no basic auth credentials")]
    [InlineData("registry_auth", "unauthorized: authentication required")]
    [InlineData("registry_auth", "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials")]
    [InlineData("registry_auth", "Get \"https://registry.example:5000/v2/\": unauthorized: incorrect username or password")]
    [InlineData("registry_rate_limit", "toomanyrequests: You have reached your pull rate limit.")]
    [InlineData("registry_unreachable", "Get \"https://registry.example:5000/v2/\": dial tcp: lookup registry.example on 10.0.0.1:53: no such host")]
    [InlineData("registry_unreachable", "Get \"http://127.0.0.1:5000/v2/\": dial tcp 127.0.0.1:5000: connect: connection refused")]
    [InlineData("registry_unreachable", "read tcp 127.0.0.1:40000->127.0.0.1:5000: read: connection reset by peer")]
    [InlineData("registry_unreachable", "unexpected EOF")]
    [InlineData("registry_unreachable", "Get \"http://127.0.0.1:5000/v2/\": EOF")]
    [InlineData("registry_unreachable", "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)")]
    [InlineData("registry_unreachable", "net/http: TLS handshake timeout")]
    [InlineData("registry_unreachable", "x509: certificate signed by unknown authority")]
    [InlineData("registry_unreachable", "received unexpected HTTP status: 503 Service Unavailable")]
    [InlineData("disk_full", "failed to register layer: Error processing tar file(exit status 1): write /x: no space left on device")]
    [InlineData("disk_full", "write /var/lib/docker/tmp/GetImageBlob1: no space left on device")]
    [InlineData("pull_failed", "filesystem layer verification failed for digest sha256:0123")]
    public void Words_of_the_engine_name_the_cause_the_image_and_the_registry(string code, string said)
    {
        var failure = PullFailures.Classify(Image, said);

        failure.Code.ShouldBe(code);
        failure.Message.ShouldContain($"image {Image}");
        failure.Message.ShouldContain("egistry registry.example:5000");
        failure.Message.ShouldEndWith($"({said})");
    }

    [Theory]
    [InlineData("Get \"https://robot:s3cret-word@registry.example/v2/\": dial tcp: i/o timeout", "https://********@registry.example/v2/")]
    [InlineData("Get \"https://blobs.example/a?X-Amz-Signature=s3cret-word&X-Amz-Date=1\": EOF", "https://blobs.example/a?********\": EOF")]
    public void Logins_and_signatures_in_addresses_are_left_out(string said, string shown)
    {
        foreach (var message in (string[])[PullFailures.Classify(Image, said).Message, PullFailures.Stalled(Image, TimeSpan.FromSeconds(1), said).Message])
        {
            message.ShouldContain(shown);
            message.ShouldNotContain("s3cret-word");
        }
    }

    [Fact]
    public void Long_words_are_cut() => PullFailures.Classify(Image, new string('x', 100_000)).Message.Length.ShouldBeLessThan(1200);

    [Fact]
    public void A_stalled_pull_tells_for_how_long_and_what_came_last()
    {
        var failure = PullFailures.Stalled("vllm/vllm-openai:v0.9.1", TimeSpan.FromSeconds(2.5), "abc: Retrying in 4 seconds");

        failure.Code.ShouldBe("registry_unreachable");
        failure.Message.ShouldStartWith("Registry docker.io sent nothing more of image vllm/vllm-openai:v0.9.1 for 2.5 s");
        failure.Message.ShouldEndWith("(last: abc: Retrying in 4 seconds)");
    }
}
