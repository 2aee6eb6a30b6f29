using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace ModelHost.Tests.Simulator;

public sealed class AudioTests
{
    private const string Transcriptions = "/v1/audio/transcriptions";

    private const string Translations = "/v1/audio/translations";

    private const string Whisper = "openai/whisper-small";

    [Theory]
    [InlineData("json")]
    [InlineData("text")]
    public async Task A_transcription_says_how_long_the_sound_was_rounded_up(string format)
    {
        await using var simulator = await RunningSimulator.StartAsync(Whisper);

        var (status, body) = await SendAsync(simulator, Transcriptions, Wave(2.5), ("response_format", format));

        status.ShouldBe(200);
        body.AsObject().Select(member => member.Key).ShouldBe(["text", "usage"]);
        ((string?)body["text"]).ShouldNotBeNullOrEmpty();
        body["usage"]!.ToJsonString().ShouldBe("""{"type":"duration","seconds":3}""");
        (await simulator.MetricAsync("http_requests_total{handler=\"/v1/audio/transcriptions\",method=\"POST\",status=\"2xx\"}")).ShouldBe(1);
        (await simulator.MetricAsync($"vllm:request_success_total{{engine=\"0\",finished_reason=\"stop\",model_name=\"{Whisper}\"}}")).ShouldBe(1);
    }

    [Fact]
    public async Task A_translation_has_its_text_alone()
    {
        await using var simulator = await RunningSimulator.StartAsync(Whisper);

        var (status, body) = await SendAsync(simulator, Translations, Wave(1));

        status.ShouldBe(200);
        body.AsObject().Select(member => member.Key).ShouldBe(["text"]);
    }

    [Fact]
    public async Task Verbose_json_has_segments_that_cover_the_sound()
    {
        await using var simulator = await RunningSimulator.StartAsync(Whisper);

        var (status, body) = await SendAsync(simulator, Transcriptions, Wave(20), ("response_format", "verbose_json"), ("language", "de"));

        status.ShouldBe(200);
        body.AsObject().Select(member => member.Key).ShouldBe(["duration", "language", "text", "segments", "words"]);
        ((string?)body["duration"]).ShouldBe("20.0");
        ((string?)body["language"]).ShouldBe("de");
        var segments = body["segments"]!.AsArray();
        segments.Count.ShouldBeGreaterThan(1);
        segments[0]!.AsObject().Select(member => member.Key).ShouldBe(
            ["id", "avg_logprob", "compression_ratio", "end", "no_speech_prob", "seek", "start", "temperature", "text", "tokens"]);
        string.Concat(segments.Select(segment => (string?)segment!["text"])).ShouldBe((string?)body["text"]);
        ((double)segments[0]!["start"]!).ShouldBe(0);
        ((double)segments[^1]!["end"]!).ShouldBe(20);
    }

    [Fact]
    public async Task A_stream_has_the_chunks_of_chat_under_another_name()
    {
        await using var simulator = await RunningSimulator.StartAsync(Whisper);

        var whole = (string?)(await SendAsync(simulator, Transcriptions, Wave(1))).Body["text"];
        using var response = await PostAsync(simulator, Transcriptions, Wave(1), ("stream", "true"), ("stream_include_usage", "true"));
        var text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);

        var events = text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries).Select(line => line["data: ".Length..]).ToArray();
        events[^1].ShouldBe("[DONE]");
        var chunks = events[..^1].Select(entry => JsonNode.Parse(entry)!).ToArray();
        chunks[0].AsObject().Select(member => member.Key).ShouldBe(["id", "object", "created", "model", "choices"]);
        ((string)chunks[0]["id"]!).ShouldStartWith("transcribe-");
        ((string?)chunks[0]["object"]).ShouldBe("transcription.chunk");
        chunks[0]["choices"]![0]!.AsObject().Select(member => member.Key).ShouldBe(["delta"]);
        chunks[^2]["choices"]![0]!.ToJsonString().ShouldBe("""{"delta":{"content":""},"finish_reason":"stop","stop_reason":null}""");
        chunks[^1]["choices"]!.AsArray().ShouldBeEmpty();
        chunks[^1]["usage"]!.AsObject().Select(member => member.Key).ShouldBe(["prompt_tokens", "total_tokens", "completion_tokens"]);
        string.Concat(chunks[..^1].Select(chunk => (string?)chunk["choices"]![0]!["delta"]!["content"])).ShouldBe(whole);
    }

    [Theory]
    [InlineData("response_format", "srt", 400, "BadRequestError", null)]
    [InlineData("response_format", "mp3", 400, "Bad Request", "body.response_format")]
    [InlineData("language", "klingon", 400, "BadRequestError", null)]
    [InlineData("model", "other", 404, "NotFoundError", "model")]
    [InlineData("temperature", "warm", 400, "Bad Request", "body.temperature")]
    [InlineData("temperature", "-1", 400, "BadRequestError", "temperature")]
    [InlineData("max_completion_tokens", "0", 400, "BadRequestError", "max_tokens")]
    [InlineData("stream", "perhaps", 400, "Bad Request", "body.stream")]
    [InlineData("stream_include_usage", "true", 400, "BadRequestError", "stream_include_usage")]
    [InlineData("file", "not a file", 422, "Unprocessable Entity", null)]
    public async Task Fields_that_cannot_be_are_refused_by_name(string field, string value, int status, string type, string? parameter)
    {
        await using var simulator = await RunningSimulator.StartAsync(Whisper);

        var (answered, body) = await SendAsync(simulator, Transcriptions, Wave(1), (field, value));

        answered.ShouldBe(status);
        ((string?)body["error"]!["type"]).ShouldBe(type);
        ((string?)body["error"]!["param"]).ShouldBe(parameter);
    }

    [Fact]
    public async Task What_is_no_sound_or_no_file_is_refused()
    {
        await using var simulator = await RunningSimulator.StartAsync(Whisper);

        var noise = await SendAsync(simulator, Transcriptions, Encoding.UTF8.GetBytes("These are only letters."));
        var broken = await SendAsync(simulator, Transcriptions, Wave(1)[..40]);
        var missing = await SendAsync(simulator, Transcriptions, null, ("language", "en"));
        var json = await simulator.SendAsync(Transcriptions, "{}");

        foreach (var (status, body) in new[] { noise, broken })
        {
            status.ShouldBe(400);
            ((string?)body["error"]!["message"]).ShouldBe("Invalid or unsupported audio file.");
        }
        foreach (var (status, body) in new[] { missing, json })
        {
            status.ShouldBe(400);
            ((string?)body["error"]!["param"]).ShouldBe("body.file");
        }
    }

    [Fact]
    public async Task Files_that_are_too_large_or_too_long_are_refused()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(
            new() { ["VLLM_MAX_AUDIO_CLIP_FILESIZE_MB"] = "1", ["VLLM_MAX_AUDIO_DECODE_DURATION_S"] = "30" }, Whisper);

        var large = await SendAsync(simulator, Transcriptions, new byte[(1 << 20) + 1]);
        var longer = await SendAsync(simulator, Transcriptions, Wave(31));

        large.Status.ShouldBe(400);
        ((string?)large.Body["error"]!["message"]).ShouldBe("Maximum file size exceeded");
        ((string?)large.Body["error"]!["param"]).ShouldBe("audio_filesize_mb");
        longer.Status.ShouldBe(400);
    }

    [Theory]
    [InlineData("m", 404, 400)]
    [InlineData("mistralai/Voxtral-Mini-3B", 200, 400)]
    [InlineData(Whisper, 200, 404)]
    public async Task Routes_follow_what_the_model_can_do(string model, int audio, int chat)
    {
        await using var simulator = await RunningSimulator.StartAsync(model);

        (await SendAsync(simulator, Transcriptions, Wave(1))).Status.ShouldBe(audio);
        (await simulator.SendAsync("/v1/chat/completions", "{}")).Status.ShouldBe(chat);
    }

    [Fact]
    public async Task A_model_that_tells_no_times_has_no_verbose_answer()
    {
        await using var simulator = await RunningSimulator.StartAsync("mistralai/Voxtral-Mini-3B");

        var (status, body) = await SendAsync(simulator, Transcriptions, Wave(1), ("response_format", "verbose_json"), ("model", "mistralai/Voxtral-Mini-3B"));

        status.ShouldBe(400);
        ((string?)body["error"]!["message"]).ShouldBe("Currently do not support verbose_json for mistralai/Voxtral-Mini-3B");
    }

    [Fact]
    public async Task Failures_on_demand_hit_transcriptions_too()
    {
        await using var simulator = await RunningSimulator.StartWithAsync(new() { ["VLLM_SIM_REQUEST_FAIL"] = "error", ["VLLM_SIM_REQUEST_FAIL_AFTER"] = "1" }, Whisper);

        var (status, _) = await SendAsync(simulator, Transcriptions, Wave(1));
        using var response = await PostAsync(simulator, Transcriptions, Wave(1), ("stream", "true"));

        status.ShouldBe(500);
        (await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken)).ShouldEndWith("\"code\":500}}\n\ndata: [DONE]\n\n");
    }

    [Theory]
    [InlineData(Transcriptions, "multipart/form-data; boundary=x")]
    [InlineData("/tokenize", "application/json")]
    public async Task A_body_without_measure_is_not_read(string path, string type)
    {
        await using var simulator = await RunningSimulator.StartAsync(Whisper);
        using var client = new TcpClient();
        await client.ConnectAsync(simulator.Http.BaseAddress!.Host, simulator.Http.BaseAddress.Port, TestContext.Current.CancellationToken);

        await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes(
            $"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {type}\r\nContent-Length: 999999999\r\n\r\n"), TestContext.Current.CancellationToken);

        using var reader = new StreamReader(client.GetStream());
        (await reader.ReadLineAsync(TestContext.Current.CancellationToken)).ShouldBe("HTTP/1.1 413 Payload Too Large");
    }

    private static async Task<(int Status, JsonNode Body)> SendAsync(RunningSimulator simulator, string path, byte[]? file, params (string Name, string Value)[] fields)
    {
        using var response = await PostAsync(simulator, path, file, fields);
        return ((int)response.StatusCode, JsonNode.Parse(await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken))!);
    }

    private static Task<HttpResponseMessage> PostAsync(RunningSimulator simulator, string path, byte[]? file, params (string Name, string Value)[] fields)
    {
        var form = new MultipartFormDataContent();
        if (file is not null)
            form.Add(new ByteArrayContent(file), "file", "speech.wav");
        foreach (var (name, value) in fields)
            form.Add(new StringContent(value), name);
        return simulator.Http.PostAsync(path, form, TestContext.Current.CancellationToken);
    }

    /// <summary>Silence of 8 kHz, one channel, 16 bits.</summary>
    internal static byte[] Wave(double seconds)
    {
        const int Rate = 8000;
        var data = (int)(seconds * Rate) * 2;
        var wave = new byte[44 + data];
        "RIFF"u8.CopyTo(wave);
        BinaryPrimitives.WriteInt32LittleEndian(wave.AsSpan(4), 36 + data);
        "WAVEfmt "u8.CopyTo(wave.AsSpan(8));
        BinaryPrimitives.WriteInt32LittleEndian(wave.AsSpan(16), 16);
        BinaryPrimitives.WriteInt16LittleEndian(wave.AsSpan(20), 1);
        BinaryPrimitives.WriteInt16LittleEndian(wave.AsSpan(22), 1);
        BinaryPrimitives.WriteInt32LittleEndian(wave.AsSpan(24), Rate);
        BinaryPrimitives.WriteInt32LittleEndian(wave.AsSpan(28), Rate * 2);
        BinaryPrimitives.WriteInt16LittleEndian(wave.AsSpan(32), 2);
        BinaryPrimitives.WriteInt16LittleEndian(wave.AsSpan(34), 16);
        "data"u8.CopyTo(wave.AsSpan(36));
        BinaryPrimitives.WriteInt32LittleEndian(wave.AsSpan(40), data);
        return wave;
    }
}
