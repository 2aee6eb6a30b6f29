using ModelHost.Agent.Downloads;
using ModelHost.Protocol;
using ModelHost.TestKit;

namespace ModelHost.Tests.Artifacts;

/// <summary>Pulls as tests ask for them.</summary>
internal static class Pulls
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>How a node downloads in tests: from this machine too, and without long waits.</summary>
    public static DownloadOptions Options() => new()
    {
        AllowedNetworks = "127.0.0.0/8",
        RetryDelay = TimeSpan.FromMilliseconds(10),
        Attempts = 3,
        ReservedDiskBytes = 0,
    };

    /// <summary>A request for a model of some files.</summary>
    public static PullRequest Model(string name, params PullFile[] files) => Request(ArtifactKind.Model, name, files);

    /// <summary>The same, to be held when it is whole.</summary>
    public static PullRequest Held(string name, params PullFile[] files)
    {
        var request = Model(name, files);
        request.Hold = true;
        return request;
    }

    /// <summary>A request for a backend.</summary>
    public static PullRequest Backend(string name, params PullFile[] files) => Request(ArtifactKind.Backend, name, files);

    /// <summary>A file of a pull.</summary>
    public static PullFile From(string uri, string path = "", string sha256 = "", params string[] mirrors) => new() { Uri = uri, Path = path, Sha256 = sha256, Mirrors = { mirrors } };

    /// <summary>Asks for a pull and waits until it has ended.</summary>
    public static async Task<Pull> DoAsync(INode node, PullRequest request)
    {
        await node.PullAsync(request, Ct);
        return await EndAsync(node, request.PullId);
    }

    /// <summary>Waits until a pull has ended.</summary>
    public static Task<Pull> EndAsync(INode node, string pullId) =>
        UntilAsync(node, pullId, pull => pull.Phase is PullPhase.Done or PullPhase.Failed or PullPhase.Cancelled);

    /// <summary>Waits until a pull stands as it should.</summary>
    public static async Task<Pull> UntilAsync(INode node, string pullId, Func<Pull, bool> holds) => (await Deadline.UntilAsync(
        () => StateAsync(node, pullId), pull => pull is not null && holds(pull), seconds: 60, what: $"pull {pullId}"))!;

    /// <summary>How a pull stands; null: it is not in the report.</summary>
    public static async Task<Pull?> StateAsync(INode node, string pullId) =>
        (await node.ReportAsync(new ReportRequest(), Ct)).Pulls.SingleOrDefault(pull => pull.PullId == pullId);

    /// <summary>What is installed under a name; null: nothing.</summary>
    public static async Task<Artifact?> InstalledAsync(INode node, string name) =>
        (await node.ArtifactsAsync(new ArtifactsRequest(), Ct)).Artifacts.SingleOrDefault(artifact => artifact.Name == name);

    private static PullRequest Request(ArtifactKind kind, string name, PullFile[] files) => new() { PullId = Guid.NewGuid().ToString(), Kind = kind, Name = name, Files = { files } };
}
