using ModelHost.Core.Backends;
using ModelHost.Core.Packages;

namespace ModelHost.Tests.Packages;

public sealed class PackageImageTests
{
    private static readonly PackageImage Plain = Image("peft>=0.11", "My_Plugin-1.0-py3-none-any.whl") with
    {
        Wheels = [new("My_Plugin-1.0-py3-none-any.whl", new string('a', 64)), new("dep-2.0-py3-none-any.whl", new string('b', 64))],
    };

    [Fact]
    public void The_command_is_an_array_that_no_shell_reads() => Plain.Dockerfile.ShouldBe($"""
        FROM sha256:{new string('0', 64)}
        ARG PIP_BREAK_SYSTEM_PACKAGES=1
        ARG PIP_ROOT_USER_ACTION=ignore
        COPY wheels/ /tmp/modelhost-wheels/
        RUN ["python3","-m","pip","install","--no-cache-dir","--disable-pip-version-check","--no-input","--progress-bar","off","--find-links","/tmp/modelhost-wheels","/tmp/modelhost-wheels/My_Plugin-1.0-py3-none-any.whl","peft\u003E=0.11"]

        """);

    [Fact]
    public void Where_packages_come_from_is_the_nodes_affair()
    {
        (Plain with { NoIndex = true, IndexUrl = "https://example.org" }).Command.ShouldContain("--no-index");
        (Plain with { NoIndex = true, IndexUrl = "https://example.org" }).Command.ShouldNotContain("--index-url");
        var indexed = (Plain with { IndexUrl = "https://index.example/simple" }).Command.ToList();
        indexed[indexed.IndexOf("--index-url") + 1].ShouldBe("https://index.example/simple");
        Image("peft").Dockerfile.ShouldNotContain("COPY");
    }

    [Fact]
    public void The_same_content_has_the_same_name_whatever_the_order()
    {
        Image("b==1", "A>=2,<3").Name.ShouldBe(Image("a<3, >=2", "B==1").Name);
        (Plain with { Wheels = [.. Plain.Wheels.Reverse()] }).Name.ShouldBe(Plain.Name);
        Plain.Name.ShouldMatch(@"\Amodelhost/packages:[0-9a-f]{32}\z");
        Plain.Key.ShouldStartWith(Plain.Tag);
    }

    [Fact]
    public void Other_content_has_another_name()
    {
        PackageImage[] images =
        [
            Plain,
            Plain with { BaseId = "sha256:" + new string('1', 64) },
            Plain with { Packages = Image("peft>=0.12").Packages },
            Plain with { Wheels = [Plain.Wheels[0], Plain.Wheels[1] with { Sha256 = new string('c', 64) }] },
            Plain with { Wheels = [Plain.Wheels[0]] },
            Plain with { NoIndex = true },
            Plain with { IndexUrl = "https://index.example/simple" },
            Plain with { Installer = ["pip", "install"] },
        ];

        images.Select(image => image.Name).Distinct().Count().ShouldBe(images.Length);
    }

    [Fact]
    public void The_installers_own_words_are_the_cause()
    {
        string[] lines =
        [
            "Step 5/5 : RUN [\"python3\"]", "Looking in links: /tmp/modelhost-wheels",
            // as an engine's builder writes the standard error: in red, a piece at a time
            "\e[91mERROR: Could not find a version that satisfies the requirement nope==1 (from versions: none)", "\e[0m\e[91mERROR: No matching distribution found for nope==1", "\e[0m",
        ];

        var failure = PackageFailures.Classify("vllm/vllm-openai:v0.28.0", lines, "The command '...' returned a non-zero code: 1");
        var without = PackageFailures.Classify("x:1", [], "exec: \"python3\": executable file not found in $PATH");
        var full = PackageFailures.Classify("x:1", ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"], "code: 1");

        failure.Code.ShouldBe("packages_failed");
        failure.Message.ShouldContain("vllm/vllm-openai:v0.28.0");
        failure.Message.ShouldContain("No matching distribution found for nope==1");
        failure.Message.ShouldNotContain("\e");
        without.Message.ShouldContain("executable file not found");
        full.Code.ShouldBe("disk_full");
    }

    private static PackageImage Image(params string[] packages) => new()
    {
        BaseId = "sha256:" + new string('0', 64),
        Installer = BackendCatalogue.BuiltIn["vllm"].InstallPackages,
        Packages = PackageSpec.ParseAll(packages).Match(parsed => parsed, failure => throw new InvalidOperationException(failure.Detail)),
    };
}
