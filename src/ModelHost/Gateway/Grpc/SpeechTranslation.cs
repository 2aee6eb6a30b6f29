using System.Buffers.Binary;
using System.Globalization;
using System.Text.Json;
using ModelHost.Agent.Http;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;

namespace ModelHost.Gateway.Grpc;

/// <summary>
/// Speech by way of a backend. It is spoken into a file on the backend's machine, as all of LocalAI's releases have it, and where that cannot be done piece by
/// piece.
/// </summary>
internal static class SpeechTranslation
{
    private const int LongestInput = 1024 * 1024;
    private const int HeaderBytes = 44;
    private const int DefaultRate = 16_000;

    /// <summary>Answers a request.</summary>
    public static async Task ServeAsync(BackendCall call)
    {
        var request = call.Request;
        if (request.Text("response_format") is { } format and not ("wav" or ""))
            throw RefusedRequestException.Field("response_format", $"must be wav: there is nothing here that makes {format} of it");
        if (request.Text("stream_format") is not (null or "audio"))
            throw RefusedRequestException.Field("stream_format", "must be audio");
        if (request.Find("sample_rate") is not null)
            throw RefusedRequestException.Field("sample_rate", "is what the model has");
        var asked = new TTSRequest
        {
            Text = request.RequiredText("input"),
            Model = call.Route.ModelName,
            Voice = request.Text("voice") ?? call.Route.Defaults.Voice,
            ModelIdentity = call.Identity,
        };
        if (asked.Text.Length is 0 or > LongestInput)
            throw RefusedRequestException.Field("input", $"must have 1 to {LongestInput} characters");
        if (request.Text("language") is { Length: > 0 } language)
            asked.Language = language;
        if (request.Text("instructions") is { Length: > 0 } instructions)
            asked.Instructions = instructions;
        foreach (var pair in request.Fields("params")?.Element.EnumerateObject().ToArray() ?? [])
            asked.Params[pair.Name] = RequestFields.TextOf(pair.Value, $"params.{pair.Name}");
        if (request.Number("speed", 0.25f, 4) is { } speed)
            asked.Params["speed"] = speed.ToString(CultureInfo.InvariantCulture);
        if (request.Flag("stream") == true || !await TrySendFileAsync(call, asked))
            await SendPiecesAsync(call, asked);
    }

    /// <returns>False: the backend does not speak into files, or none that is found; nothing was sent.</returns>
    private static async Task<bool> TrySendFileAsync(BackendCall call, TTSRequest asked)
    {
        await using var file = await call.FileAsync("wav", null);
        asked.Dst = file.Path;
        try
        {
            var result = await call.AskAsync((backend, cancellationToken) => backend.TtsAsync(asked, null, cancellationToken));
            if (!result.Success)
                throw new RpcException(RpcCode.Internal, result.Message);
        }
        catch (RpcException e) when (BackendCall.IsMissing(e))
        {
            return false;
        }
        await using var spoken = await file.OpenReadAsync(call.Ended);
        if (spoken is null)
            return false;
        var head = new byte[12];
        var read = await spoken.ReadAtLeastAsync(head, head.Length, throwOnEndOfStream: false, call.Ended);
        if (read == 0)
            throw new RpcException(RpcCode.Internal, "the file with the speech is empty");
        var (type, extension) = Kind(head.AsSpan(0, read));
        Begin(call, type, extension);
        await call.Context.Response.Body.WriteAsync(head.AsMemory(0, read), call.Aborted);
        await spoken.CopyToAsync(call.Context.Response.Body, call.Ended);
        return true;
    }

    private static async Task SendPiecesAsync(BackendCall call, TTSRequest asked)
    {
        asked.Dst = "";
        var body = call.Context.Response.Body;
        var (hasBegun, rate) = (false, DefaultRate);
        await foreach (var reply in call.StreamAsync((backend, cancellationToken) => backend.TtsStreamAsync(asked, null, cancellationToken)))
        {
            if (!hasBegun)
                rate = Rate(reply, rate);
            if (reply.Audio.IsEmpty)
                continue;
            if (!hasBegun)
            {
                Begin(call, "audio/wav", "wav");
                if (!reply.Audio.Span.StartsWith("RIFF"u8))
                    await body.WriteAsync(Header(rate), call.Aborted);
                hasBegun = true;
            }
            await body.WriteAsync(reply.Audio.Memory, call.Aborted);
            await body.FlushAsync(call.Aborted);
        }
        if (!hasBegun)
            throw new RpcException(RpcCode.Internal, "nothing was spoken");
    }

    private static void Begin(BackendCall call, string type, string extension)
    {
        var response = call.Context.Response;
        response.ContentType = type;
        response.Headers.ContentDisposition = $"attachment; filename=\"speech.{extension}\"";
        response.Headers[RequestId.Header] = RequestId.Of(call.Context);
    }

    /// <summary>What a file is by its first bytes: backends write what they can, whatever the file is called.</summary>
    private static (string Type, string Extension) Kind(ReadOnlySpan<byte> head) =>
        head.StartsWith("RIFF"u8) ? ("audio/wav", "wav")
        : head.StartsWith("ID3"u8) || (head.Length > 1 && head[0] == 0xFF && (head[1] & 0xE6) == 0xE2) ? ("audio/mpeg", "mp3")
        : head.StartsWith("OggS"u8) ? ("audio/ogg", "ogg")
        : head.StartsWith("fLaC"u8) ? ("audio/flac", "flac")
        : ("application/octet-stream", "bin");

    private static int Rate(Reply reply, int otherwise)
    {
        if (reply.Message.IsEmpty)
            return otherwise;
        try
        {
            using var told = JsonDocument.Parse(reply.Message.Memory);
            return told.RootElement.ValueKind == JsonValueKind.Object && told.RootElement.TryGetProperty("sample_rate", out var rate)
                && rate.ValueKind == JsonValueKind.Number && rate.TryGetInt32(out var number) && number is >= 1000 and <= 768_000 ? number : otherwise;
        }
        catch (JsonException)
        {
            return otherwise;
        }
    }

    /// <summary>The head of 16-bit mono whose length is not known.</summary>
    private static byte[] Header(int rate)
    {
        var header = new byte[HeaderBytes];
        var span = header.AsSpan();
        "RIFF"u8.CopyTo(span);
        BinaryPrimitives.WriteUInt32LittleEndian(span[4..], uint.MaxValue);
        "WAVEfmt "u8.CopyTo(span[8..]);
        BinaryPrimitives.WriteInt32LittleEndian(span[16..], 16);
        BinaryPrimitives.WriteInt16LittleEndian(span[20..], 1);
        BinaryPrimitives.WriteInt16LittleEndian(span[22..], 1);
        BinaryPrimitives.WriteInt32LittleEndian(span[24..], rate);
        BinaryPrimitives.WriteInt32LittleEndian(span[28..], rate * 2);
        BinaryPrimitives.WriteInt16LittleEndian(span[32..], 2);
        BinaryPrimitives.WriteInt16LittleEndian(span[34..], 16);
        "data"u8.CopyTo(span[36..]);
        BinaryPrimitives.WriteUInt32LittleEndian(span[40..], uint.MaxValue);
        return header;
    }
}
