using System.Text;
using ModelHost.Protocol.Backend;

namespace ModelHost.Gateway.Grpc;

/// <summary>Puts calls together that a backend tells in pieces, or gives each an id where it has none.</summary>
internal sealed class CallAssembly
{
    // an answer is bounded by its messages; this is about what a broken backend could make of few bytes
    private const int Most = 1024;

    private readonly SortedDictionary<int, (string Id, string Name, StringBuilder Arguments)> _calls = [];

    /// <summary>How many there are so far.</summary>
    public int Count => _calls.Count;

    /// <summary>Takes a piece.</summary>
    /// <returns>The piece as a client gets it: whether it is the first of its call, the call's id and name as far as they are known.</returns>
    public (bool IsFirst, string Id, string Name) Take(ToolCallDelta piece)
    {
        var isFirst = !_calls.TryGetValue(piece.Index, out var call);
        if (isFirst && _calls.Count == Most)
            throw new Rpc.RpcException(Rpc.RpcCode.Internal, $"the answer calls more than {Most} functions");
        if (isFirst)
            call = (piece.Id.Length > 0 ? piece.Id : NewId(), piece.Name, new StringBuilder());
        else if (call.Name.Length == 0)
            call.Name = piece.Name;
        call.Arguments.Append(piece.Arguments);
        _calls[piece.Index] = call;
        return (isFirst, call.Id, call.Name);
    }

    /// <summary>The calls, whole.</summary>
    public IReadOnlyList<AnswerCall> Whole() =>
        [.. _calls.Values.Select((call, i) => new AnswerCall(i, call.Id, "function", new AnswerFunction(call.Name, call.Arguments.ToString())))];

    /// <summary>Pieces of calls that a model wrote as text.</summary>
    public static IEnumerable<ToolCallDelta> Pieces(IReadOnlyList<WrittenCall> calls) =>
        calls.Select((call, i) => new ToolCallDelta { Index = i, Name = call.Name, Arguments = call.Arguments });

    private static string NewId() => $"call_{Guid.NewGuid():N}";
}
