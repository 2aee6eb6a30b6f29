using System.ComponentModel.DataAnnotations;
using System.Net;
using ModelHost.Core.Backends;
using ModelHost.Core.Engines;

namespace ModelHost.Agent.Backends;

/// <summary>A gRPC backend that is not installed in a folder. Exactly one of <see cref="Image"/> and <see cref="Address"/> is given.</summary>
public sealed class NodeBackend
{
    /// <summary>Image whose entry point takes <c>--addr HOST:PORT</c>: repository and tag. Default: none.</summary>
    public string Image { get; set; } = "";

    /// <summary>Where one listens that somebody else starts: <c>HOST:PORT</c>, cleartext HTTP/2. Default: none.</summary>
    public string Address { get; set; } = "";

    /// <summary>What one at an address wants to hear as <c>authorization: Bearer</c> (its <c>LOCALAI_GRPC_AUTH_TOKEN</c>). Default: nothing.</summary>
    public string Token { get; set; } = "";

    /// <summary>Where it listens, as a URL.</summary>
    internal Uri? Url => Uri.TryCreate($"http://{Address}", UriKind.Absolute, out var url) ? url : null;
}

/// <summary>Lets through backends that are well described.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class NodeBackendsAttribute : ValidationAttribute
{
    protected override ValidationResult? IsValid(object? value, ValidationContext validationContext)
    {
        foreach (var (name, backend) in value as Dictionary<string, NodeBackend> ?? [])
        {
            if (Fault(name, backend) is { } fault)
                return new ValidationResult($"Node:Backends:{name} {fault}", [nameof(NodeOptions.Backends)]);
        }
        return ValidationResult.Success;
    }

    private static string? Fault(string name, NodeBackend backend) =>
        !BackendCatalogue.IsInstallable(name) ? "is no name for a backend: letters, digits and . _ -, and none of those that are built in"
        : backend.Image.Length > 0 == backend.Address.Length > 0 ? "needs an Image or an Address, and not both"
        : backend.Address.Length > 0 && !IsAddress(backend) ? "has an Address that is not HOST:PORT"
        : backend.Image.Length > 0 && EngineImage.Split(backend.Image) is null ? "has an Image that is not repository:tag"
        : null;

    private static bool IsAddress(NodeBackend backend) =>
        backend.Url is { } url && url.Authority == backend.Address && url.Port is > 0 and <= IPEndPoint.MaxPort && backend.Address.EndsWith($":{url.Port}", StringComparison.Ordinal);
}
