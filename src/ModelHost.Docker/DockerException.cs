using System.Net;

namespace ModelHost.Docker;

/// <summary>
/// A call that the engine refused, or that failed on its way: the one exception of this library besides <see cref="OperationCanceledException"/>
/// and those for wrong arguments.
/// </summary>
public sealed class DockerException : Exception
{
    internal DockerException(string call, HttpStatusCode? statusCode, string engineMessage, Exception? inner = null)
        : base(statusCode is { } status ? $"{call} answered {(int)status}: {engineMessage}" : $"{call} failed: {engineMessage}", inner)
    {
        Call = call;
        StatusCode = statusCode;
        EngineMessage = engineMessage;
    }

    /// <summary>
    /// The status of the answer. A failure inside the stream of an answer that began well (a pull) carries the status of that answer.
    /// Null: the engine was not reached, or broke off.
    /// </summary>
    public HttpStatusCode? StatusCode { get; }

    /// <summary>What the engine said, or what went wrong on the way to it. At most 64 KiB.</summary>
    public string EngineMessage { get; }

    /// <summary>Method and path, for example <c>POST /containers/create</c>; without the query, which may carry secrets.</summary>
    public string Call { get; }
}
