using System.Globalization;
using System.Net;
using System.Text;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.Net.Http.Headers;
using ModelHost.Agent;
using ModelHost.Agent.Http;
using ModelHost.Protocol.Backend;
using ModelHost.Rpc;

namespace ModelHost.Gateway.Grpc;

/// <summary>Transcriptions by way of a backend: the sound is put into a file on its machine as it comes, and is gone with the answer.</summary>
internal static class TranscriptTranslation
{
    private const int LongestField = 64 * 1024;
    private const int MostParts = 64;

    /// <summary>Answers a request.</summary>
    public static async Task ServeAsync(BackendCall call)
    {
        var fields = new Dictionary<string, List<string>>();
        BackendFile? file = null;
        try
        {
            file = await ReadAsync(call, fields) ?? throw RefusedRequestException.Field("file", "is missing");
            var format = One(fields, "response_format") ?? "json";
            if (format is not ("json" or "text" or "verbose_json" or "srt" or "vtt"))
                throw RefusedRequestException.Field("response_format", "must be json, text, verbose_json, srt or vtt");
            if (Flag(fields, "stream"))
                throw RefusedRequestException.Field("stream", "must be false: transcriptions are answered whole");
            var asked = Asked(call, fields, file.Path);
            var result = await call.AskAsync((backend, cancellationToken) => backend.TranscribeAsync(asked, null, cancellationToken));
            await AnswerAsync(call, format, asked, result);
        }
        finally
        {
            if (file is not null)
                await file.DisposeAsync();
        }
    }

    private static TranscriptRequest Asked(BackendCall call, Dictionary<string, List<string>> fields, string path)
    {
        var asked = new TranscriptRequest
        {
            Dst = path,
            Language = One(fields, "language") ?? "",
            Translate = call.Kind.EnginePath == "/v1/audio/translations" || Flag(fields, "translate"),
            Diarize = Flag(fields, "diarize"),
            Prompt = One(fields, "prompt") ?? "",
            Temperature = Temperature(fields),
            ModelIdentity = call.Identity,
        };
        foreach (var name in (string[])["timestamp_granularities[]", "timestamp_granularities"])
            asked.TimestampGranularities.Add(fields.GetValueOrDefault(name) ?? []);
        return asked;
    }

    /// <summary>Reads the form; its file goes to the backend's machine as it comes.</summary>
    private static async Task<BackendFile?> ReadAsync(BackendCall call, Dictionary<string, List<string>> fields)
    {
        var boundary = HeaderUtilities.RemoveQuotes(MediaTypeHeaderValue.Parse(call.Context.Request.ContentType).Boundary).ToString();
        var body = new ClientStream(call.Body);
        var parts = new MultipartReader(boundary, body);
        BackendFile? file = null;
        try
        {
            for (var count = 0; await parts.ReadNextSectionAsync(call.Aborted) is { } part; count++)
            {
                if (count == MostParts)
                    throw RefusedRequestException.Field("file", "comes with too many other fields");
                if (part.GetContentDispositionHeader() is not { } disposition)
                    continue;
                var name = HeaderUtilities.RemoveQuotes(disposition.Name).ToString();
                if (name != "file")
                {
                    if (!fields.TryGetValue(name, out var values))
                        values = fields[name] = [];
                    values.Add(await TextAsync(part.Body, name, call.Aborted));
                    continue;
                }
                if (file is not null)
                    throw RefusedRequestException.Field("file", "is given twice");
                file = await call.FileAsync(Extension(disposition), part.Body);
            }
            return file;
        }
        catch (Exception e)
        {
            if (file is not null)
                await file.DisposeAsync();
            throw e switch
            {
                InvalidDataException when body.Fault is null => TooLarge(),
                HttpRequestException { StatusCode: HttpStatusCode.RequestEntityTooLarge } => TooLarge(),
                // not the client's fault but the disk's
                IOException when body is { Fault: null, HasEnded: false } => new RpcException(RpcCode.Unknown, e.Message, e),
                IOException when body.Fault is null => new RefusedRequestException(StatusCodes.Status400BadRequest, OpenAiErrors.InvalidForm("it ends early")),
                _ => body.Fault ?? e,
            };
        }
    }

    private static RefusedRequestException TooLarge() => new(StatusCodes.Status413PayloadTooLarge, OpenAiErrors.TooLarge());

    private static async Task<string> TextAsync(Stream part, string name, CancellationToken cancellationToken)
    {
        var bytes = new byte[LongestField + 1];
        var read = await part.ReadAtLeastAsync(bytes, bytes.Length, throwOnEndOfStream: false, cancellationToken);
        return read <= LongestField ? Encoding.UTF8.GetString(bytes, 0, read) : throw RefusedRequestException.Field(name, "is too long");
    }

    // backends tell what a file is by its name
    private static string Extension(ContentDispositionHeaderValue disposition)
    {
        var extension = Path.GetExtension(HeaderUtilities.RemoveQuotes(disposition.FileName).ToString()).TrimStart('.').ToLowerInvariant();
        return extension.Length is > 0 and <= 8 && extension.All(char.IsAsciiLetterOrDigit) ? extension : "wav";
    }

    private static Task AnswerAsync(BackendCall call, string format, TranscriptRequest asked, TranscriptResult result) => format switch
    {
        "json" => call.AnswerAsync(new TranscriptAnswer(result.Text), OpenAiAnswerJson.Readable.TranscriptAnswer),
        "verbose_json" => call.AnswerAsync(Verbose(asked, result), OpenAiAnswerJson.Readable.VerboseTranscript),
        "srt" => TextAsync(call, string.Concat(result.Segments.Select((part, i) => $"{i + 1}\n{Time(part.Start, ',')} --> {Time(part.End, ',')}\n{part.Text.Trim()}\n\n"))),
        "vtt" => TextAsync(call, "WEBVTT\n\n" + string.Concat(result.Segments.Select(part => $"{Time(part.Start, '.')} --> {Time(part.End, '.')}\n{part.Text.Trim()}\n\n"))),
        _ => TextAsync(call, result.Text),
    };

    private static VerboseTranscript Verbose(TranscriptRequest asked, TranscriptResult result)
    {
        var words = result.Segments.SelectMany(part => part.Words).Select(word => new TranscriptWordPart(word.Text, Seconds(word.Start), Seconds(word.End))).ToArray();
        var duration = float.IsFinite(result.Duration) && result.Duration > 0 ? result.Duration : result.Segments.Select(part => Seconds(part.End)).DefaultIfEmpty().Max();
        return new VerboseTranscript(
            asked.Translate ? "translate" : "transcribe", result.Language.Length > 0 ? result.Language : asked.Language, Math.Round(duration, 3), result.Text,
            [.. result.Segments.Select(part => new TranscriptPart(part.Id, Seconds(part.Start), Seconds(part.End), part.Text, part.Tokens)
            {
                Speaker = part.Speaker.Length > 0 ? part.Speaker : null,
            })])
        {
            Words = words.Length > 0 ? words : null,
        };
    }

    private static async Task TextAsync(BackendCall call, string text)
    {
        call.Context.Response.ContentType = "text/plain; charset=utf-8";
        call.Context.Response.Headers[RequestId.Header] = RequestId.Of(call.Context);
        await call.Context.Response.WriteAsync(text, call.Aborted);
    }

    private static double Seconds(long nanoseconds) => Math.Round(nanoseconds / 1e9, 3);

    private static string Time(long nanoseconds, char point)
    {
        var time = TimeSpan.FromTicks(Math.Max(0, nanoseconds) / TimeSpan.NanosecondsPerTick);
        return string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalHours:00}:{time.Minutes:00}:{time.Seconds:00}{point}{time.Milliseconds:000}");
    }

    private static string? One(Dictionary<string, List<string>> fields, string name) => fields.TryGetValue(name, out var values) && values[0].Length > 0 ? values[0] : null;

    private static bool Flag(Dictionary<string, List<string>> fields, string name) => One(fields, name) switch
    {
        null or "false" or "False" or "0" => false,
        "true" or "True" or "1" => true,
        _ => throw RefusedRequestException.Field(name, "must be true or false"),
    };

    private static float Temperature(Dictionary<string, List<string>> fields) => One(fields, "temperature") switch
    {
        null => 0,
        var text when float.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var number) && number is >= 0 and <= 100 => number,
        _ => throw RefusedRequestException.Field("temperature", "must be a number from 0 to 100"),
    };

    /// <summary>The client's bytes: whether a failure was theirs, or that of what they are written to.</summary>
    private sealed class ClientStream(Stream body) : StreamOver(body)
    {
        public Exception? Fault { get; private set; }

        public bool HasEnded { get; private set; }

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            try
            {
                var read = await Inner.ReadAsync(buffer, cancellationToken);
                HasEnded |= read == 0 && buffer.Length > 0;
                return read;
            }
            catch (Exception e)
            {
                Fault = e;
                throw;
            }
        }
    }
}
