using System.Diagnostics;
using System.Text.Json;
using ModelHost.IntegrationTests;
using ModelHost.TestKit;

[assembly: AssemblyFixture(typeof(NodeScripts))]

namespace ModelHost.IntegrationTests;

/// <summary>
/// Runs the scripts in <c>js</c> with Node.js, and installs what they need once per assembly. Take it as a constructor argument.
/// Other programs that tests need are looked up here as well.
/// </summary>
public sealed class NodeScripts : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(5), InstallLimit = TimeSpan.FromMinutes(15);
    private static readonly string[] s_packages = ["openai", "@anthropic-ai/sdk", "playwright-core", "@grpc/grpc-js", "@grpc/proto-loader"];
    private readonly SemaphoreSlim _one = new(1);
    private bool _installed;

    /// <summary>Where the scripts lie.</summary>
    public static string Folder => Path.Combine(RealDocker.RepositoryRoot, "tests", "ModelHost.IntegrationTests", "js");

    /// <summary>The path of a program; skips the calling test where it is not installed.</summary>
    /// <param name="program">Its name.</param>
    /// <param name="package">The Debian package that has it.</param>
    public static string Find(string program, string package)
    {
        var path = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists);
        Assert.SkipWhen(path is null, $"there is no {program}: install the package {package}");
        return path!;
    }

    /// <summary>Runs a script.</summary>
    /// <param name="script">Its file name in <c>js</c>.</param>
    /// <param name="input">What it is told, as JSON in its one argument.</param>
    /// <returns>The JSON that it prints as its last line.</returns>
    public async Task<JsonElement> RunAsync(string script, object input)
    {
        var node = await NodeAsync();
        var (code, output, errors) = await RunProgramAsync(node, [script, JsonSerializer.Serialize(input)], "");
        code.ShouldBe(0, $"{script}: {errors}\n{output}");
        return JsonSerializer.Deserialize<JsonElement>(output.TrimEnd().Split('\n')[^1]);
    }

    /// <summary>The path of Node.js, when what the scripts need is installed.</summary>
    public async Task<string> NodeAsync()
    {
        var node = Find("node", "nodejs");
        await InstallAsync();
        return node;
    }

    /// <summary>Runs a program to its end and returns what it printed. Throws when it takes longer than five minutes.</summary>
    public static Task<(int Code, string Output, string Errors)> RunProgramAsync(string program, string[] arguments, string standardInput) =>
        RunProgramAsync(program, arguments, standardInput, Limit);

    private static async Task<(int Code, string Output, string Errors)> RunProgramAsync(string program, string[] arguments, string standardInput, TimeSpan within)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = Folder,
        };
        start.Environment["NODE_NO_WARNINGS"] = "1";
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync();
        var errors = process.StandardError.ReadToEndAsync();
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        limit.CancelAfter(within);
        try
        {
            await process.StandardInput.WriteAsync(standardInput.AsMemory(), limit.Token);
            process.StandardInput.Close();
            await process.WaitForExitAsync(limit.Token);
        }
        catch
        {
            process.Kill(entireProcessTree: true);
            throw;
        }
        return (process.ExitCode, await output, await errors);
    }

    public void Dispose() => _one.Dispose();

    private async Task InstallAsync()
    {
        await _one.WaitAsync();
        try
        {
            if (_installed)
                return;
            if (!s_packages.All(package => Directory.Exists(Path.Combine(Folder, "node_modules", package))))
            {
                var (code, output, errors) = await RunProgramAsync(Find("npm", "npm"), ["ci", "--no-audit", "--no-fund", "--fetch-retries=5"], "", InstallLimit);
                code.ShouldBe(0, $"npm ci: {errors}\n{output}");
            }
            _installed = true;
        }
        finally
        {
            _one.Release();
        }
    }
}
