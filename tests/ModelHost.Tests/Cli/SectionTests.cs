using System.Text.RegularExpressions;
using Microsoft.Extensions.Options;
using ModelHost.Cli;
using ModelHost.TestKit;

namespace ModelHost.Tests.Cli;

/// <summary>Which settings <c>modelhost serve Section:Key=value</c> takes: all that the host has, and all that the manual names.</summary>
public sealed partial class SectionTests
{
    [Fact]
    public async Task Every_option_that_the_host_binds_has_its_section_on_the_command_line()
    {
        Type[] options = [];
        await using var host = await ControlPlane.StartAsync(configure: services => options =
            [.. services.Where(service => service.ServiceType.IsConstructedGenericType && service.ServiceType.GetGenericTypeDefinition() == typeof(IConfigureOptions<>))
                .Select(service => service.ServiceType.GenericTypeArguments[0]).Where(type => type.FullName!.StartsWith("ModelHost.", StringComparison.Ordinal)).Distinct()]);

        options.Length.ShouldBeGreaterThan(10);
        foreach (var type in options)
            CommandLine.Sections.ShouldContain((string?)type.GetField("Section")?.GetRawConstantValue(), type.Name);
    }

    [Fact]
    public void Every_setting_of_the_manual_can_be_set_on_the_command_line()
    {
        var settings = Setting().Matches(File.ReadAllText(Path.Combine(RealDocker.RepositoryRoot, "docs", "operations.md"))).Select(match => match.Groups["setting"].Value).Distinct().ToArray();

        settings.Length.ShouldBeGreaterThan(50);
        foreach (var setting in settings)
            CommandLine.Sections.ShouldContain(section => setting.StartsWith(section + ':', StringComparison.Ordinal), setting);
    }

    [GeneratedRegex(@"^\| `(?<setting>[A-Z]\w*(:\w+)+)`", RegexOptions.Multiline)]
    private static partial Regex Setting();
}
