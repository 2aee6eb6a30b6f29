using Microsoft.Extensions.Options;
using ModelHost.Core;
using ModelHost.Features.Galleries;
using ModelHost.Protocol;

namespace ModelHost.Features.Backends;

/// <summary>Says what an entry of a gallery means on a node: which of its builds, and what is done to install that.</summary>
internal sealed class BackendPlanner(IOptions<GalleryOptions> options)
{
    /// <summary>Makes the plan.</summary>
    /// <param name="shelf">What can be installed.</param>
    /// <param name="found">The entry.</param>
    /// <param name="hostname">The node's name.</param>
    /// <param name="report">What the node says of itself.</param>
    /// <param name="version">Release or tag that was asked for; empty: that of the gallery.</param>
    /// <param name="newest">The newest release of a backend that every node knows; empty: not known.</param>
    public Result<(FoundEntry Build, BackendPlan Plan)> Plan(BackendShelf shelf, FoundEntry found, string hostname, NodeReport report, string version, string newest) =>
        !shelf.Choose(found, NodeCapability.Of(hostname, report, options.Value.Capabilities)).TryGet(out var build, out var failure)
        || !BackendPlan.Make(build, found.Entry.IsMeta ? found : null, version, newest).TryGet(out var plan, out failure)
            ? failure : (build, plan);
}
