using ModelHost.Core.Packages;

namespace ModelHost.Tests.Packages;

public sealed class PackageSpecTests
{
    [Theory]
    [InlineData("peft", "peft", "peft")]
    [InlineData("PEFT", "peft", "peft")]
    [InlineData("Foo__Bar.baz", "foo-bar-baz", "foo-bar-baz")]
    [InlineData("a", "a", "a")]
    [InlineData("peft==0.11.1", "peft", "peft==0.11.1")]
    [InlineData("peft >= 0.11 , < 1", "peft", "peft<1,>=0.11")]
    [InlineData("peft<1,>=0.11", "peft", "peft<1,>=0.11")]
    [InlineData("peft ~=0.11.0", "peft", "peft~=0.11.0")]
    [InlineData("peft==0.11.*,!=0.11.3", "peft", "peft!=0.11.3,==0.11.*")]
    [InlineData("torch==2.9.0+cu129", "torch", "torch==2.9.0+cu129")]
    [InlineData("x==1!2.0rc1.post2.dev3", "x", "x==1!2.0rc1.post2.dev3")]
    [InlineData("mistral_common[image, Audio]>=1.8", "mistral-common", "mistral-common[audio,image]>=1.8")]
    [InlineData("x[]", "x", "x")]
    public void A_requirement_is_read_and_written_in_one_way(string text, string project, string canonical)
    {
        var package = PackageSpec.Parse(text).ShouldNotBeNull();

        (package.Project, package.Text, package.IsWheel).ShouldBe((project, canonical, false));
    }

    [Theory]
    [InlineData("my_plugin-1.0-py3-none-any.whl", "my-plugin")]
    [InlineData("flash_attn-2.8.3+cu12torch2.9-cp312-cp312-linux_x86_64.whl", "flash-attn")]
    [InlineData("x-1.0-1build-py2.py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "x")]
    public void A_wheel_is_known_by_its_file_name(string text, string project)
    {
        var package = PackageSpec.Parse(text).ShouldNotBeNull();

        (package.Project, package.Text, package.IsWheel).ShouldBe((project, text, true));
    }

    [Theory]
    [InlineData("")]
    [InlineData(" ")]
    [InlineData(null)]
    [InlineData("-r requirements.txt")]
    [InlineData("--index-url=http://x")]
    [InlineData("-e .")]
    [InlineData("-")]
    [InlineData(".")]
    [InlineData("./x")]
    [InlineData("/tmp/x")]
    [InlineData("../x-1-py3-none-any.whl")]
    [InlineData("wheels/x-1-py3-none-any.whl")]
    [InlineData(".x-1-py3-none-any.whl")]
    [InlineData("x-1-py3-none.whl")]
    [InlineData("x.whl")]
    [InlineData("x-1.tar.gz/y")]
    [InlineData("x @ https://example.org/x.whl")]
    [InlineData("git+https://example.org/x")]
    [InlineData("https://example.org/x.whl")]
    [InlineData("file:///x")]
    [InlineData("x; python_version < '3'")]
    [InlineData("x==1; y")]
    [InlineData("x && y")]
    [InlineData("$(id)")]
    [InlineData("x`id`")]
    [InlineData("x\ny")]
    [InlineData("x\n")]
    [InlineData("x\\")]
    [InlineData("x y")]
    [InlineData("x==")]
    [InlineData("x=1")]
    [InlineData("x===1")]
    [InlineData("x==1,")]
    [InlineData("x==1 --hash=sha256:0")]
    [InlineData("x[a")]
    [InlineData("x[a b]")]
    [InlineData("_x")]
    [InlineData("x_")]
    [InlineData("ünicode")]
    public void Everything_else_is_refused(string? text)
    {
        PackageSpec.Parse(text).ShouldBeNull();
        PackageSpec.ParseAll([text!]).Failure.ShouldNotBeNull().Field.ShouldBe("extra_packages");
    }

    [Fact]
    public void A_list_is_bounded_and_names_a_project_once()
    {
        PackageSpec.Parse(new string('x', 257)).ShouldBeNull();
        PackageSpec.Parse(new string('x', 256)).ShouldNotBeNull();
        PackageSpec.ParseAll([.. Enumerable.Range(0, 65).Select(i => $"x{i}")]).Failure.ShouldNotBeNull();
        PackageSpec.ParseAll(["Foo.Bar", "foo_bar-1.0-py3-none-any.whl"]).Failure.ShouldNotBeNull().Detail.ShouldContain("'foo-bar' twice");
        PackageSpec.ParseAll([]).Failure.ShouldBeNull();
    }
}
