using Microsoft.AspNetCore.Http.Extensions;

namespace ModelHost.Features.Deployments;

/// <summary>Which deployments are asked for; what is null or empty does not count.</summary>
/// <param name="Status">Only those in one of these statuses.</param>
/// <param name="NodeId">Only those of this node.</param>
/// <param name="Owner">Only those of this owner.</param>
/// <param name="Limit">At most so many; null: all.</param>
/// <param name="BeforeId">Only those whose id is below this one.</param>
internal sealed record DeploymentQuery(
    IReadOnlyList<string>? Status = null, int? NodeId = null, string? Owner = null, int? Limit = null, int? BeforeId = null);

/// <summary>Some deployments.</summary>
/// <param name="Deployments">Newest first.</param>
/// <param name="NextBeforeId">Where the next page begins; null: there is none.</param>
internal sealed record DeploymentPage(IReadOnlyList<DeploymentRead> Deployments, int? NextBeforeId)
{
    /// <summary>The value of the header <c>Link</c> (RFC 8288); null: there is no next page.</summary>
    /// <param name="request">The request for this page.</param>
    public string? NextLink(HttpRequest request)
    {
        if (NextBeforeId is not { } before)
            return null;
        var query = new QueryBuilder(request.Query.Where(pair => !pair.Key.Equals("before_id", StringComparison.OrdinalIgnoreCase))
            .SelectMany(pair => pair.Value.Select(value => KeyValuePair.Create(pair.Key, value ?? "")))
            .Append(KeyValuePair.Create("before_id", FormattableString.Invariant($"{before}"))));
        return $"<{request.PathBase.ToUriComponent()}{request.Path.ToUriComponent()}{query}>; rel=\"next\"";
    }
}
