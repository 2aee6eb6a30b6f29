using System.Net;

namespace ModelHost.Rpc;

/// <summary>How a call ended; the codes of gRPC with their numbers.</summary>
public enum RpcCode
{
    /// <summary>It was done.</summary>
    Ok = 0,

    /// <summary>The other side gave it up.</summary>
    Cancelled = 1,

    /// <summary>Nobody can say.</summary>
    Unknown = 2,

    /// <summary>What was asked makes no sense, whatever the state of the server.</summary>
    InvalidArgument = 3,

    /// <summary>The time given had passed.</summary>
    DeadlineExceeded = 4,

    /// <summary>What was asked for is not there.</summary>
    NotFound = 5,

    /// <summary>What was to be made is there already.</summary>
    AlreadyExists = 6,

    /// <summary>The caller is known and may not do this.</summary>
    PermissionDenied = 7,

    /// <summary>Something has run out, or a message was over the limit.</summary>
    ResourceExhausted = 8,

    /// <summary>The server is in no state to do this.</summary>
    FailedPrecondition = 9,

    /// <summary>Another change came in between.</summary>
    Aborted = 10,

    /// <summary>Beyond the end of something.</summary>
    OutOfRange = 11,

    /// <summary>The server has no such method, or not this way of calling it.</summary>
    Unimplemented = 12,

    /// <summary>One side broke the protocol.</summary>
    Internal = 13,

    /// <summary>The server cannot be reached, or went away; it may be tried again.</summary>
    Unavailable = 14,

    /// <summary>Data is lost for good.</summary>
    DataLoss = 15,

    /// <summary>The caller is not known.</summary>
    Unauthenticated = 16,
}

/// <summary>A call that did not end with <see cref="RpcCode.Ok"/>. A server throws it to say how a call ends; its detail goes to the caller.</summary>
public sealed class RpcException : Exception
{
    /// <summary>Makes one.</summary>
    /// <param name="code">How the call ended.</param>
    /// <param name="detail">What to tell a person; may be empty.</param>
    /// <param name="inner">What led to it on this side.</param>
    public RpcException(RpcCode code, string detail, Exception? inner = null) : base($"{code}: {detail}", inner) => (Code, Detail) = (code, detail);

    /// <summary>How the call ended.</summary>
    public RpcCode Code { get; }

    /// <summary>What to tell a person; may be empty.</summary>
    public string Detail { get; }

    /// <summary>What an answer without a gRPC status stands for: that of a proxy, or of something that is no gRPC server.</summary>
    internal static RpcException OfHttp(HttpStatusCode status) => new(status switch
    {
        HttpStatusCode.BadRequest => RpcCode.Internal,
        HttpStatusCode.Unauthorized => RpcCode.Unauthenticated,
        HttpStatusCode.Forbidden => RpcCode.PermissionDenied,
        HttpStatusCode.NotFound => RpcCode.Unimplemented,
        HttpStatusCode.TooManyRequests or HttpStatusCode.BadGateway or HttpStatusCode.ServiceUnavailable or HttpStatusCode.GatewayTimeout => RpcCode.Unavailable,
        _ => RpcCode.Unknown,
    }, $"the answer has the HTTP status {(int)status}");

    /// <summary>What a failure of the connection or of the stream stands for.</summary>
    internal static RpcException Of(Exception failure)
    {
        for (var cause = failure; cause is not null; cause = cause.InnerException)
        {
            if (cause is RpcException known)
                return known;
            if (cause is HttpProtocolException protocol)
                return new(OfHttp2(protocol.ErrorCode), protocol.Message, failure);
        }
        var code = failure is IOException or HttpRequestException ? RpcCode.Unavailable : RpcCode.Internal;
        return new(code, failure.GetBaseException().Message, failure);
    }

    private static RpcCode OfHttp2(long error) => error switch
    {
        // PROTOCOL_ERROR is also what a ping without an answer comes as
        1 or 7 => RpcCode.Unavailable,
        8 => RpcCode.Cancelled,
        11 => RpcCode.ResourceExhausted,
        12 => RpcCode.PermissionDenied,
        _ => RpcCode.Internal,
    };
}
