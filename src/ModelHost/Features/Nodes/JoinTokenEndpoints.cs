using Microsoft.AspNetCore.Http.HttpResults;
using ModelHost.Common;
using ModelHost.Core;

namespace ModelHost.Features.Nodes;

/// <summary><c>/api/nodes/join-tokens</c>.</summary>
internal static class JoinTokenEndpoints
{
    /// <summary>Maps the routes into the group of the nodes.</summary>
    public static void MapJoinTokens(this IEndpointRouteBuilder nodes)
    {
        nodes.MapPost("/join-tokens", CreateAsync).WithName("CreateJoinToken").WithSummary("Make a token with which one node can join, once; the first opens the cluster listener.")
            .ProducesValidationProblem().ProducesProblem(StatusCodes.Status503ServiceUnavailable);
        nodes.MapGet("/join-tokens", ListAsync).WithName("ListJoinTokens").WithSummary("List join tokens, the newest first, without what they are used with.");
        nodes.MapDelete("/join-tokens/{id:int}", DeleteAsync).WithName("DeleteJoinToken").WithSummary("Delete a join token. A node that joined with it stays.")
            .ProducesProblem(StatusCodes.Status404NotFound);
    }

    private static async Task<Results<Ok<JoinTokenCreated>, ProblemHttpResult>> CreateAsync(
        JoinTokenCreate request, JoinTokenService tokens, CancellationToken cancellationToken) => (await tokens.CreateAsync(request, cancellationToken)).ToAnswer();

    private static async Task<Ok<IReadOnlyList<JoinTokenRead>>> ListAsync(JoinTokenService tokens, CancellationToken cancellationToken) =>
        TypedResults.Ok(await tokens.ListAsync(cancellationToken));

    private static async Task<Results<NoContent, ProblemHttpResult>> DeleteAsync(int id, JoinTokenService tokens, CancellationToken cancellationToken) =>
        await tokens.DeleteAsync(id, cancellationToken)
            ? TypedResults.NoContent()
            : new Failure(FailureKind.NotFound, "join_token.not_found", $"There is no join token {id}.").ToProblem();
}
