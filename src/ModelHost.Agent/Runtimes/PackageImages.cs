using System.Formats.Tar;
using System.Net;
using System.Text;
using ModelHost.Core.Packages;
using ModelHost.Docker;

namespace ModelHost.Agent.Runtimes;

/// <summary>Builds images with extra packages on this node, and finds those that are there.</summary>
internal sealed class PackageImages(DockerClient docker, NodeOptions options, NodeIdentity identity, TimeProvider time) : IDisposable
{
    private const string Detail = "building image";
    private const int KeptLines = 200;

    // one build at a time: it loads the machine, and whoever waits may find what it needs
    private readonly SemaphoreSlim _one = new(1);

    /// <summary>Makes sure that the image with a launch's packages is on the node.</summary>
    /// <returns>Its name; the base image's when no packages are asked for.</returns>
    /// <exception cref="RuntimeException">It is not, and could not be built.</exception>
    public async Task<string> EnsureAsync(EngineLaunch launch, string baseImage, Action<LaunchProgress> progress, CancellationToken cancellationToken)
    {
        if (launch.Spec.ExtraPackages.Count == 0)
            return baseImage;
        if (!PackageSpec.ParseAll(launch.Spec.ExtraPackages).TryGet(out var packages, out var fault))
            throw new RuntimeException(fault.Detail) { Failure = PackageFailures.Because(fault.Detail) };
        progress(new LaunchProgress(Detail));
        await using var wheels = await WheelFolder.OpenAsync(options.WheelFolder, packages, cancellationToken);
        var image = new PackageImage
        {
            BaseId = (await DockerRuntime.Ask(() => docker.InspectImageAsync(baseImage, cancellationToken))).Id,
            Installer = launch.Recipe.InstallPackages,
            Packages = packages,
            Wheels = wheels.Wheels,
            NoIndex = options.PackageNoIndex,
            IndexUrl = options.PackageIndexUrl,
        };
        await _one.WaitAsync(cancellationToken);
        try
        {
            if (await IsThereAsync(image, cancellationToken))
                progress(new LaunchProgress(Detail, Line: $"[modelhost] {image.Name} has the packages"));
            else
                await BuildAsync(image, baseImage, wheels, progress, cancellationToken);
        }
        finally
        {
            _one.Release();
        }
        return image.Name;
    }

    public void Dispose() => _one.Dispose();

    private async Task BuildAsync(PackageImage image, string baseImage, WheelFolder wheels, Action<LaunchProgress> progress, CancellationToken cancellationToken)
    {
        progress(new LaunchProgress(Detail, Line: $"[modelhost] building {image.Name} on {baseImage}: {string.Join(' ', image.Packages.Select(package => package.Text))}"));
        using var late = new CancellationTokenSource(options.PackageTimeout, time);
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(late.Token, cancellationToken);
        var last = new Queue<string>();
        try
        {
            await using var context = await ContextAsync(image, wheels, waiting.Token);
            var spec = new BuildSpec { Tag = image.Name, Labels = new Dictionary<string, string> { [PackageImage.Label] = image.Key } };
            await docker.BuildImageAsync(context, spec, line =>
            {
                last.Enqueue(line);
                if (last.Count > KeptLines)
                    last.Dequeue();
                progress(new LaunchProgress(Detail, Line: $"[build] {line}"));
            }, waiting.Token);
        }
        catch (OperationCanceledException e) when (!cancellationToken.IsCancellationRequested)
        {
            throw new RuntimeException(e.Message, e) { Failure = PackageFailures.TookTooLong(options.PackageTimeout) };
        }
        // nobody cancelled it here: the engine is being shut down
        catch (DockerException e) when (e.StatusCode is null || e.EngineMessage.Contains("context canceled", StringComparison.Ordinal))
        {
            throw new RuntimeException(e.Message, e, silent: true);
        }
        catch (DockerException e)
        {
            throw new RuntimeException(e.Message, e) { Failure = PackageFailures.Classify(baseImage, last, e.EngineMessage) };
        }
        catch (IOException e)
        {
            throw new RuntimeException(e.Message, e) { Failure = PackageFailures.Because(e.Message) };
        }
    }

    /// <summary>The Dockerfile and the wheels as a tar file: wheels may be larger than the memory.</summary>
    private async Task<Stream> ContextAsync(PackageImage image, WheelFolder wheels, CancellationToken cancellationToken)
    {
        var folder = Path.Combine(identity.DataFolder, "packages");
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        var path = Path.Combine(folder, $"{Guid.NewGuid():N}.tar");
        var context = new FileStream(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.Delete);
        try
        {
            File.Delete(path); // open it stays, and with this process it is gone
            await using (var tar = new TarWriter(context, TarEntryFormat.Pax, leaveOpen: true))
            {
                using var dockerfile = new MemoryStream(Encoding.UTF8.GetBytes(image.Dockerfile));
                await AddAsync(tar, "Dockerfile", dockerfile, cancellationToken);
                foreach (var (name, content) in wheels.Contents())
                    await AddAsync(tar, $"{PackageImage.WheelFolder}/{name}", content, cancellationToken);
            }
            context.Position = 0;
            return context;
        }
        catch
        {
            await context.DisposeAsync();
            throw;
        }
    }

    // the time is part of what the engine caches by: the same content is the same file
    private static Task AddAsync(TarWriter tar, string name, Stream content, CancellationToken cancellationToken) =>
        tar.WriteEntryAsync(new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = content, ModificationTime = DateTimeOffset.UnixEpoch }, cancellationToken);

    private Task<bool> IsThereAsync(PackageImage image, CancellationToken cancellationToken) => DockerRuntime.Ask(async () =>
    {
        try
        {
            // somebody may have given the name to something else
            return (await docker.InspectImageAsync(image.Name, cancellationToken)).Labels.GetValueOrDefault(PackageImage.Label) == image.Key;
        }
        catch (DockerException e) when (e.StatusCode == HttpStatusCode.NotFound)
        {
            return false;
        }
    });
}
