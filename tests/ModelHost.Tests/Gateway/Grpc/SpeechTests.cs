using System.Net;
using System.Text;
using System.Text.Json;
using Google.Protobuf;
using ModelHost.Protocol.Backend;
using ModelHost.TestKit;

namespace ModelHost.Tests.Gateway.Grpc;

/// <summary>Speech and transcriptions by way of a gRPC backend, whose files are on its machine.</summary>
public sealed class SpeechTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("/v1/audio/speech")]
    [InlineData("/tts")]
    public async Task Speech_is_the_file_that_the_backend_wrote_and_the_file_is_gone(string path)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.Speak = asked =>
        {
            File.WriteAllText(asked.Dst, "RIFF" + asked.Text);
            return new Result { Success = true };
        };

        using var answer = await PostAsync(host, """{"model":"m","input":"hello","voice":"v","language":"en","instructions":"softly","speed":1.5,"params":{"a":"b"}}""", path);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await answer.Content.ReadAsStringAsync(Ct)).ShouldBe("RIFFhello");
        answer.Content.Headers.ContentType!.MediaType.ShouldBe("audio/wav");
        answer.Content.Headers.ContentDisposition!.ToString().ShouldBe("attachment; filename=\"speech.wav\"");
        var request = backend.Asked.OfType<TTSRequest>().Single();
        (request.Model, request.Voice, request.Language, request.Instructions, request.ModelIdentity).ShouldBe(("org/model", "v", "en", "softly", "org/model"));
        request.Params.ShouldBe(new Dictionary<string, string> { ["a"] = "b", ["speed"] = "1.5" }, ignoreOrder: true);
        request.Dst.ShouldStartWith(host.Node.Data);
        await Deadline.UntilAsync(() => !File.Exists(request.Dst));
    }

    [Fact]
    public async Task A_stream_is_sound_of_no_known_length_in_the_backends_rate()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.SpeakPieces = (_, _) => TestBackend.Replies(
            new Reply { Message = ByteString.CopyFromUtf8("""{"sample_rate":24000}""") },
            new Reply { Audio = ByteString.CopyFrom(1, 2) }, new Reply { Audio = ByteString.CopyFrom(3, 4) });

        using var answer = await PostAsync(host, """{"model":"m","input":"hello","stream":true}""");

        var sound = await answer.Content.ReadAsByteArrayAsync(Ct);
        answer.Content.Headers.ContentType!.MediaType.ShouldBe("audio/wav");
        Convert.ToHexString(sound).ShouldBe("52494646FFFFFFFF57415645666D74201000000001000100C05D000080BB000002001000" + "64617461FFFFFFFF" + "01020304");
    }

    [Fact]
    public async Task A_backend_that_writes_no_file_is_asked_for_pieces()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        backend.SpeakPieces = (_, _) => TestBackend.Replies(new Reply { Audio = ByteString.CopyFromUtf8("RIFF whole") });
        using var missing = await PostAsync(host, """{"model":"m","input":"hello"}""");
        backend.Speak = _ => new Result { Success = true }; // somewhere else, as a backend of another machine does
        using var elsewhere = await PostAsync(host, """{"model":"m","input":"hello"}""");

        (await missing.Content.ReadAsStringAsync(Ct)).ShouldBe("RIFF whole");
        (await elsewhere.Content.ReadAsStringAsync(Ct)).ShouldBe("RIFF whole");
    }

    [Fact]
    public async Task A_backend_that_cannot_speak_says_so_and_its_reasons_stay_inside()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        using var missing = await PostAsync(host, """{"model":"m","input":"hello"}""");
        backend.Speak = _ => new Result { Success = false, Message = "no voice in /opt/secret" };
        using var failed = await PostAsync(host, """{"model":"m","input":"hello"}""");
        backend.Speak = asked =>
        {
            File.CreateSymbolicLink(asked.Dst, "/etc/hostname");
            return new Result { Success = true };
        };
        using var link = await PostAsync(host, """{"model":"m","input":"hello"}""");

        missing.StatusCode.ShouldBe(HttpStatusCode.NotImplemented);
        failed.StatusCode.ShouldBe(HttpStatusCode.BadGateway);
        (await failed.Content.ReadAsStringAsync(Ct)).ShouldNotContain("secret");
        link.StatusCode.ShouldBe(HttpStatusCode.NotImplemented, "a link is no file of the backend's, and it speaks in no other way");
    }

    [Theory]
    [InlineData("""{"model":"m"}""", "input")]
    [InlineData("""{"model":"m","input":""}""", "input")]
    [InlineData("""{"model":"m","input":"x","response_format":"mp3"}""", "response_format")]
    [InlineData("""{"model":"m","input":"x","speed":9}""", "speed")]
    [InlineData("""{"model":"m","input":"x","params":{"a":1}}""", "params.a")]
    [InlineData("""{"model":"m","input":"x","stream_format":"sse"}""", "stream_format")]
    public async Task What_cannot_be_spoken_is_named(string body, string field)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);

        using var answer = await PostAsync(host, body);

        answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
        JsonDocument.Parse(await answer.Content.ReadAsStringAsync(Ct)).RootElement.GetProperty("error").GetProperty("param").GetString().ShouldBe(field);
        backend.Asked.ShouldBeEmpty();
    }

    [Fact]
    public async Task A_sound_is_written_down_from_a_file_that_is_gone_afterwards()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        var sound = new byte[6_000_000]; // more than is read before it is passed on
        new Random(1).NextBytes(sound);
        byte[] heard = [];
        backend.Write = asked =>
        {
            heard = File.ReadAllBytes(asked.Dst);
            return new TranscriptResult
            {
                Text = "Hello you",
                Language = "en",
                Duration = 2.5f,
                Segments =
                {
                    new TranscriptSegment { Id = 0, Start = 0, End = 1_500_000_000, Text = " Hello", Tokens = { 1, 2 }, Words = { new TranscriptWord { Start = 0, End = 1_000_000_000, Text = "Hello" } } },
                    new TranscriptSegment { Id = 1, Start = 1_500_000_000, End = 3_661_250_000_000, Text = " you", Speaker = "A" },
                },
            };
        };

        async Task<string> WriteAsync(string format, string path = "/v1/audio/transcriptions")
        {
            using var form = new MultipartFormDataContent
            {
                { new ByteArrayContent(sound), "file", "talk.mp3" }, { new StringContent("m"), "model" }, { new StringContent(format), "response_format" },
                { new StringContent("en"), "language" }, { new StringContent("A talk"), "prompt" }, { new StringContent("0.5"), "temperature" }, { new StringContent("word"), "timestamp_granularities[]" },
            };
            using var answer = await host.Client.PostAsync(new Uri(path, UriKind.Relative), form, Ct);
            return await answer.Content.ReadAsStringAsync(Ct);
        }

        (await WriteAsync("json")).ShouldBe("""{"text":"Hello you"}""");
        heard.ShouldBe(sound);
        (await WriteAsync("text")).ShouldBe("Hello you");
        (await WriteAsync("verbose_json", "/v1/audio/translations")).ShouldBe("""
            {"task":"translate","language":"en","duration":2.5,"text":"Hello you","segments":[{"id":0,"start":0,"end":1.5,"text":" Hello","tokens":[1,2]},{"id":1,"start":1.5,"end":3661.25,"text":" you","tokens":[],"speaker":"A"}],"words":[{"word":"Hello","start":0,"end":1}]}
            """.Trim());
        (await WriteAsync("srt")).ShouldBe("1\n00:00:00,000 --> 00:00:01,500\nHello\n\n2\n00:00:01,500 --> 01:01:01,250\nyou\n\n");
        (await WriteAsync("vtt")).ShouldStartWith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello\n\n");
        (await WriteAsync("docx")).ShouldContain("\"param\":\"response_format\"");
        var asked = backend.Asked.OfType<TranscriptRequest>().ToArray();
        (asked[0].Language, asked[0].Prompt, asked[0].Temperature, asked[0].Translate, asked[2].Translate).ShouldBe(("en", "A talk", 0.5f, false, true));
        asked[0].TimestampGranularities.ShouldBe(["word"]);
        Path.GetExtension(asked[0].Dst).ShouldBe(".mp3");
        asked.ShouldAllBe(one => !File.Exists(one.Dst));
        Directory.EnumerateFiles(Path.GetDirectoryName(asked[0].Dst)!).ShouldBeEmpty("also of what was refused nothing is left");
    }

    [Fact]
    public async Task A_form_without_a_file_or_with_two_is_refused()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        using var without = new MultipartFormDataContent { { new StringContent("m"), "model" } };
        using var two = new MultipartFormDataContent { { new StringContent("m"), "model" }, { new ByteArrayContent([1]), "file", "a.wav" }, { new ByteArrayContent([1]), "file", "b.wav" } };

        using var first = await host.Client.PostAsync(new Uri("/v1/audio/transcriptions", UriKind.Relative), without, Ct);
        using var second = await host.Client.PostAsync(new Uri("/v1/audio/transcriptions", UriKind.Relative), two, Ct);

        foreach (var answer in new[] { first, second })
        {
            answer.StatusCode.ShouldBe(HttpStatusCode.BadRequest);
            (await answer.Content.ReadAsStringAsync(Ct)).ShouldContain("\"param\":\"file\"");
        }
        backend.Asked.ShouldBeEmpty();
    }

    [Fact]
    public async Task A_file_that_cannot_be_made_is_no_fault_of_the_request()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        await File.WriteAllTextAsync(Path.Combine(host.Node.Data, "run-files"), "where the folder should be", Ct);
        using var form = new MultipartFormDataContent { { new StringContent("m"), "model" }, { new ByteArrayContent([1]), "file", "a.wav" } };

        using var speech = await PostAsync(host, """{"model":"m","input":"hello"}""");
        using var transcript = await host.Client.PostAsync(new Uri("/v1/audio/transcriptions", UriKind.Relative), form, Ct);

        foreach (var answer in new[] { speech, transcript })
        {
            answer.StatusCode.ShouldBe(HttpStatusCode.BadGateway);
            var text = await answer.Content.ReadAsStringAsync(Ct);
            text.ShouldContain("backend_failed");
            text.ShouldNotContain("run-files");
        }
    }

    [Fact]
    public async Task A_client_that_leaves_while_it_sends_leaves_no_file()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var backend = await TestBackend.StartAsync(host);
        using var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        using var form = new MultipartFormDataContent { { new StringContent("m"), "model" }, { new StreamContent(new EndlessSound(leave)), "file", "a.wav" } };

        await Should.ThrowAsync<Exception>(() => host.Client.PostAsync(new Uri("/v1/audio/transcriptions", UriKind.Relative), form, leave.Token));

        var files = Path.Combine(host.Node.Data, "run-files");
        await Deadline.UntilAsync(() => !Directory.Exists(files) || !Directory.EnumerateFiles(files, "*", SearchOption.AllDirectories).Any());
        backend.Asked.ShouldBeEmpty();
    }

    private static async Task<HttpResponseMessage> PostAsync(ControlPlane host, string body, string path = "/v1/audio/speech")
    {
        using var content = new StringContent(body, Encoding.UTF8, "application/json");
        return await host.Client.PostAsync(new Uri(path, UriKind.Relative), content, Ct);
    }

    /// <summary>Sound without end, whose sender leaves after 16 MiB.</summary>
    private sealed class EndlessSound(CancellationTokenSource leave) : MemoryStream
    {
        private long _sent;

        public override long Length => throw new NotSupportedException();

        public override bool CanSeek => false;

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            _sent += buffer.Length;
            if (_sent > 16 * 1024 * 1024)
                await leave.CancelAsync();
            return buffer.Length;
        }

        public override async Task CopyToAsync(Stream destination, int bufferSize, CancellationToken cancellationToken)
        {
            var buffer = new byte[bufferSize];
            while (await ReadAsync(buffer, cancellationToken) is var read and > 0)
                await destination.WriteAsync(buffer.AsMemory(0, read), cancellationToken);
        }
    }
}
