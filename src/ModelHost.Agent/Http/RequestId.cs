using System.Text;
using Microsoft.AspNetCore.Http;

namespace ModelHost.Agent.Http;

/// <summary>What a request of <c>/v1</c> is called in answers and logs.</summary>
public static class RequestId
{
    /// <summary>The header that tells it.</summary>
    public const string Header = "X-Request-Id";

    private const int Longest = 256;

    /// <summary>The client's own name for it, else ours.</summary>
    public static string Of(HttpContext context) =>
        context.Request.Headers[Header] is [{ Length: > 0 and <= Longest } asked] && Ascii.IsValid(asked) ? asked : context.TraceIdentifier;
}
