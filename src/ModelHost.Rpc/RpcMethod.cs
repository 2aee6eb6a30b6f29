using Google.Protobuf;

namespace ModelHost.Rpc;

/// <summary>A method of a service, as client and server both need it.</summary>
/// <param name="service">Full name of the service: <c>package.Service</c>.</param>
/// <param name="name">Name of the method.</param>
/// <param name="requests">Reads what is asked.</param>
/// <param name="responses">Reads what is answered.</param>
public sealed class RpcMethod<TRequest, TResponse>(string service, string name, MessageParser<TRequest> requests, MessageParser<TResponse> responses)
    where TRequest : class, IMessage<TRequest>
    where TResponse : class, IMessage<TResponse>
{
    /// <summary>Path of its URL.</summary>
    public string Path { get; } = $"/{service}/{name}";

    internal MessageParser<TRequest> Requests => requests;

    internal MessageParser<TResponse> Responses => responses;
}
