using System.Globalization;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Reads which of the data parallel engines a client wants.</summary>
internal static class RequestedRank
{
    /// <summary>The request for the engine that <c>X-data-parallel-rank</c> names; without a number there the server chooses.</summary>
    public static GenerationRequest ToRankOf(this GenerationRequest request, HttpContext context) =>
        context.Request.Headers.TryGetValue("X-data-parallel-rank", out var rank) && int.TryParse(rank, CultureInfo.InvariantCulture, out var index)
            ? request with { EngineIndex = index } : request;
}
