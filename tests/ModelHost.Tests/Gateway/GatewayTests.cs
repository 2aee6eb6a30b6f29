using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using ModelHost.TestKit;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Tests.Gateway;

/// <summary>The gateway over real sockets, before engines that a test writes.</summary>
public sealed class GatewayTests
{
    private const string Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    private static readonly Uri Completions = new("/v1/chat/completions", UriKind.Relative);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Bad_bodies_are_answered_in_openais_shape_and_reach_no_engine()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, _ => Task.CompletedTask);
        foreach (var (body, code, param) in ((string, string, string?)[])
            [
                ("", "invalid_json", null), ("{", "invalid_json", null), ("x", "invalid_json", null), ("\uFEFF{\"model\":\"m\"}", "invalid_json", null),
                ("[]", "missing_model", "model"), ("7", "missing_model", "model"), ("\"m\"", "missing_model", "model"), ("null", "missing_model", "model"),
                ("{}", "missing_model", "model"), ("{\"model\":7}", "missing_model", "model"), ("{\"x\":{\"model\":\"m\"}}", "missing_model", "model"),
                ("{\"model\":\"m\",\"mod\\u0065l\":\"m\"}", "invalid_json", "model"), ("{\"model\":\"m\",\"x\":" + new string('[', 5000), "invalid_json", null),
            ])
        {
            foreach (var path in (string[])["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
            {
                using var answer = await host.Client.PostAsync(new Uri(path, UriKind.Relative), Json(body), Ct);
                await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.BadRequest, code, param);
            }
        }
        engine.Requests.ShouldBe(0);
    }

    [Fact]
    public async Task An_unknown_model_is_not_found_and_what_is_there_is_said()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, _ => Task.CompletedTask, "org/here");

        using var answer = await host.Client.PostAsJsonAsync(Completions, Api.Chat(new string('x', 400)), Ct);

        var text = await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.NotFound, "model_not_found", "model");
        text.ShouldContain("org/here");
        text.Length.ShouldBeLessThan(500);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("text/plain")]
    [InlineData("application/x-www-form-urlencoded")]
    [InlineData("multipart/form-data; boundary=x")]
    public async Task A_body_that_is_not_called_json_is_refused(string? contentType)
    {
        await using var host = await ControlPlane.StartAsync();
        using var content = Json("{\"model\":\"m\"}");
        content.Headers.ContentType = contentType is null ? null : MediaTypeHeaderValue.Parse(contentType);

        using var answer = await host.Client.PostAsync(Completions, content, Ct);

        await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.UnsupportedMediaType, "unsupported_media_type");
    }

    [Theory]
    [InlineData("GET", "/v1/chat/completions")]
    [InlineData("GET", "/v1/nothing/here")]
    [InlineData("POST", "/v1/models")]
    [InlineData("DELETE", "/v1")]
    [InlineData("POST", "/v1/chat/completions/")]
    public async Task What_is_no_route_is_said_in_openais_shape(string method, string path)
    {
        await using var host = await ControlPlane.StartAsync();
        using var request = new HttpRequestMessage(new HttpMethod(method), path);

        using var answer = await host.Client.SendAsync(request, Ct);

        if (path.EndsWith("completions/", StringComparison.Ordinal))
            await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.UnsupportedMediaType, "unsupported_media_type"); // the same route
        else
            await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.NotFound, "not_found");
    }

    [Fact]
    public async Task A_body_over_the_limit_is_refused_whether_its_length_is_said_or_not()
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:MaxRequestBytes=100000");
        await using var engine = await StandInEngine.StartAsync(host, DiscardAsync);
        var body = $$"""{"model":"m","prompt":"{{new string('x', 100_000)}}"}""";
        foreach (var chunked in (bool[])[false, true])
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, Completions) { Content = Json(body) };
            // a server that refuses a body while it is being sent breaks the pipe, at times before its answer is read
            (request.Headers.TransferEncodingChunked, request.Headers.ExpectContinue) = (chunked, true);
            using var answer = await host.Client.SendAsync(request, Ct);

            await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.RequestEntityTooLarge, "request_too_large");
        }
        await Deadline.UntilAsync(() => host.Client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct), page => page.Contains(
            "modelhost_gateway_request_duration_seconds_count{model=\"_other\",route=\"/v1/chat/completions\",status=\"413\"} 2\n", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("")]
    [InlineData("400000\n{\"model\":\"m\",\"prompt\":\"", 0x400000 - 23)]
    public async Task A_chunk_longer_than_numbers_go_is_the_clients_fault(string before, int padding = 0)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, DiscardAsync);
        var chunks = before.Length == 0 ? "" : $"{before}{new string('x', padding)}\n10000\n{new string('x', 0x10000)}\n";

        var answer = await RawHttp.SendAsync(host.Url,
            $"POST /v1/chat/completions HTTP/1.1\nHost: {host.Url.Authority}\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n{chunks}7fffffffffffffff\n",
            halfClose: false, Ct);

        answer.ShouldStartWith("HTTP/1.1 400 ");
        answer.ShouldContain("invalid_json");
    }

    [Fact]
    public async Task What_goes_wrong_inside_is_logged()
    {
        using var lines = new LogLines();
        await using var host = await ControlPlane.StartAsync(configure: services => services
            .AddSingleton<ILoggerProvider>(lines).AddSingleton<IHttpForwarder, BrokenForwarder>());
        await using var engine = await StandInEngine.StartAsync(host, DiscardAsync);

        using var answer = await host.Client.PostAsync(Completions, Json("{\"model\":\"m\"}"), Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.InternalServerError);
        (await answer.Content.ReadAsStringAsync(Ct)).ShouldNotContain("a bug");
        lines.Exceptions.ShouldContain(e => e.Message == "a bug");
    }

    [Theory]
    [InlineData(0, false)]
    [InlineData(400 * 1024, true)]
    [InlineData(5 * 1024 * 1024, false)]
    [InlineData(9 * 1024 * 1024, true)]
    public async Task An_engine_gets_the_bytes_that_were_sent(int length, bool chunked)
    {
        await using var host = await ControlPlane.StartAsync();
        var got = new MemoryStream();
        await using var engine = await StandInEngine.StartAsync(host, context => context.Request.Body.CopyToAsync(got, Ct));
        var sent = Encoding.UTF8.GetBytes($$"""{ "a" :  1.50, "ü":"\u00fc", "prompt":"{{new string('x', length)}}","mod\u0065l":"m" , "z":[1 ,2]}""" + "\n");
        using var request = new HttpRequestMessage(HttpMethod.Post, Completions) { Content = new ByteArrayContent(sent) { Headers = { ContentType = new("application/json") } } };
        request.Headers.TransferEncodingChunked = chunked;

        using var answer = await host.Client.SendAsync(request, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        got.ToArray().AsSpan().SequenceEqual(sent).ShouldBeTrue();
    }

    [Fact]
    public async Task A_large_body_whose_second_model_comes_late_is_refused_and_never_whole_at_the_engine()
    {
        await using var host = await ControlPlane.StartAsync();
        var whole = false;
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await DiscardAsync(context);
            whole = true;
        });
        var filler = new string('x', 5 * 1024 * 1024);

        using var answer = await host.Client.PostAsync(Completions, Json($$"""{"model":"m","a":"{{filler}}","b":"{{filler}}","mod\u0065l":"other"}"""), Ct);

        await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.BadRequest, "invalid_json", "model");
        whole.ShouldBeFalse();
    }

    [Fact]
    public async Task Credentials_and_foreign_headers_never_reach_an_engine()
    {
        await using var host = await ControlPlane.StartAsync();
        var seen = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        var target = "";
        await using var engine = await StandInEngine.StartAsync(host, context =>
        {
            foreach (var (name, value) in context.Request.Headers)
                seen[name] = value.ToString();
            target = context.Request.Path + context.Request.QueryString;
            return DiscardAsync(context);
        });
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions?key=secret") { Content = Json("{\"model\":\"m\"}") };
        foreach (var (name, value) in ((string, string)[])
            [
                ("Authorization", "Bearer secret"), ("Cookie", "a=secret"), ("X-Api-Key", "secret"), ("Proxy-Authorization", "secret"), ("X-Custom", "secret"),
                ("X-Request-Id", "r1"), ("User-Agent", "tests/1"), ("Accept", "text/event-stream"), ("traceparent", Trace), ("tracestate", "a=1"), ("baggage", "secret"),
                ("Accept-Encoding", "gzip"), ("OpenAI-Organization", "secret"),
            ])
            request.Headers.TryAddWithoutValidation(name, value).ShouldBeTrue();

        using var answer = await host.Client.SendAsync(request, Ct);

        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
        seen["Authorization"].ShouldBe($"Bearer {StandInEngine.Key}");
        (seen["X-Request-Id"], seen["User-Agent"], seen["Accept"]).ShouldBe(("r1", "tests/1", "text/event-stream"));
        (seen["traceparent"], seen["tracestate"]).ShouldBe((Trace, "a=1"));
        answer.Headers.GetValues("X-Request-Id").ShouldBe(["r1"]);
        seen.Values.ShouldAllBe(value => !value.Contains("secret", StringComparison.Ordinal));
        seen.Keys.Except(["Authorization", "traceparent", "tracestate", "X-Request-Id", "User-Agent", "Accept", "Content-Type", "Content-Length", "Host"], StringComparer.OrdinalIgnoreCase).ShouldBeEmpty();
        target.ShouldBe("/v1/chat/completions");
    }

    /// <summary>Neither HTTP/1.1 client nor server here can send other than ASCII: such a header is left out, and nothing fails.</summary>
    [Fact]
    public async Task Headers_that_are_not_ascii_break_nothing()
    {
        await using var host = await ControlPlane.StartAsync();
        var seen = "";
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await DiscardAsync(context);
            seen = string.Join('\n', context.Request.Headers.Select(header => $"{header.Key}: {header.Value}"));
            context.Response.Headers.ContentType = "application/json";
            context.Response.Headers.ContentDisposition = "attachment; filename=ü";
            context.Response.Headers["X-Request-Id"] = "ü";
            await context.Response.WriteAsync("{}", Ct);
        }, headers: Encoding.Latin1);

        var answer = await RawHttp.SendAsync(host.Url,
            $"POST /v1/chat/completions HTTP/1.1\nHost: localhost\nConnection: close\nContent-Type: application/json\nUser-Agent: \u00c3\u00bc\nX-Request-Id: \u00c3\u00bc\nAccept: a/b\nContent-Length: 13\n\n{{\"model\":\"m\"}}",
            halfClose: false, Ct);

        answer.ShouldStartWith("HTTP/1.1 200 ");
        answer.ShouldContain("X-Request-Id: ");
        answer.ShouldNotContain("Content-Disposition");
        seen.ShouldContain("Accept: a/b");
        seen.ShouldNotContain("User-Agent");
    }

    [Fact]
    public async Task Every_answer_has_a_name_of_its_request()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, DiscardAsync);
        foreach (var (asked, body) in ((string?, string)[])[("r1", "{\"model\":\"m\"}"), ("r1", "{\"model\":\"nobody\"}"), ("r1", "{"), (null, "{\"model\":\"m\"}"), (null, "{"), (new string('x', 300), "{")])
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, Completions) { Content = Json(body) };
            if (asked is not null)
                request.Headers.Add("X-Request-Id", asked);
            using var answer = await host.Client.SendAsync(request, Ct);

            var name = answer.Headers.GetValues("X-Request-Id").ShouldHaveSingleItem();
            if (asked?.Length < 300)
                name.ShouldBe(asked);
            else
                name.Length.ShouldBeInRange(1, 100);
        }
    }

    [Fact]
    public async Task An_answer_that_breaks_off_is_not_passed_as_a_whole_one()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await DiscardAsync(context);
            context.Response.ContentType = "application/json";
            await context.Response.WriteAsync("{\"choices\":[", Ct);
            await context.Response.Body.FlushAsync(Ct);
            context.Abort();
        });

        // whether its beginning or an error comes first, it does not end as an answer does
        try
        {
            using var answer = await host.Client.PostAsync(Completions, Json("{\"model\":\"m\"}"), Ct);
            await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.BadGateway, "deployment_unreachable");
        }
        catch (HttpRequestException e)
        {
            e.InnerException.ShouldBeAssignableTo<IOException>();
        }
    }

    /// <summary>An agent that does not reach its engine answers so.</summary>
    [Theory]
    [InlineData(HttpStatusCode.BadGateway, "deployment_unreachable")]
    [InlineData(HttpStatusCode.ServiceUnavailable, "model_loading")]
    [InlineData(HttpStatusCode.GatewayTimeout, "deployment_timeout")]
    public async Task A_bare_status_gets_the_words_of_the_gateway(HttpStatusCode status, string code)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await DiscardAsync(context);
            context.Response.StatusCode = (int)status;
        });

        using var answer = await host.Client.PostAsync(Completions, Json("{\"model\":\"m\"}"), Ct);

        await answer.ShouldBeOpenAiErrorAsync(status, code, status == HttpStatusCode.ServiceUnavailable ? "model" : null);
        answer.Headers.Contains("Retry-After").ShouldBe(status == HttpStatusCode.ServiceUnavailable);
    }

    [Theory]
    [InlineData(400, "{\"error\":{\"message\":\"no\",\"type\":\"BadRequestError\",\"param\":null,\"code\":400}}")]
    [InlineData(404, "{\"error\":{}}")]
    [InlineData(422, "[1, 2 ]")]
    [InlineData(500, "<html>broken</html>")]
    [InlineData(503, "")]
    public async Task An_engines_error_passes_as_it_came(int status, string body)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await DiscardAsync(context);
            context.Response.StatusCode = status;
            context.Response.ContentType = "application/json; of=engine";
            context.Response.Headers.Server = "uvicorn";
            context.Response.Headers.SetCookie = "a=b";
            context.Response.Headers["X-Request-Id"] = "r1";
            await context.Response.WriteAsync(body, Ct);
        });

        using var answer = await host.Client.PostAsync(Completions, Json("{\"model\":\"m\"}"), Ct);

        ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ct)).ShouldBe((status, body));
        answer.Content.Headers.ContentType!.ToString().ShouldBe("application/json; of=engine");
        answer.Headers.GetValues("X-Request-Id").ShouldBe(["r1"]);
        answer.Headers.Contains("Set-Cookie").ShouldBeFalse();
        answer.Headers.Contains("Server").ShouldBeFalse();
    }

    [Fact]
    public async Task Every_event_of_a_stream_comes_when_it_is_sent()
    {
        await using var host = await ControlPlane.StartAsync();
        var read = new SemaphoreSlim(0);
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await DiscardAsync(context);
            context.Response.ContentType = "text/event-stream; charset=utf-8";
            for (var i = 0; i < 5; i++)
            {
                await context.Response.WriteAsync($"data: {i}\n\n", Ct);
                await context.Response.Body.FlushAsync(Ct);
                // the next event is not sent before the client has this one
                await read.WaitAsync(Ct);
            }
        });
        using var request = new HttpRequestMessage(HttpMethod.Post, Completions) { Content = Json("{\"model\":\"m\",\"stream\":true}") };

        using var answer = await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
        using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
        for (var i = 0; i < 5; i++)
        {
            (await reader.ReadLineAsync(Ct)).ShouldBe($"data: {i}");
            (await reader.ReadLineAsync(Ct)).ShouldBe("");
            read.Release();
        }

        (await reader.ReadLineAsync(Ct)).ShouldBeNull();
        answer.Headers.CacheControl!.NoCache.ShouldBeTrue();
        answer.Headers.GetValues("X-Accel-Buffering").ShouldBe(["no"]);
    }

    [Theory]
    [InlineData(true, "deployment_unreachable")]
    [InlineData(false, "deployment_timeout")]
    public async Task A_stream_that_does_not_go_on_ends_with_an_error(bool breaks, string code)
    {
        await using var host = await ControlPlane.StartAsync(configuration: $"Gateway:ActivityTimeout=00:00:{(breaks ? 30 : 1):00}");
        var read = new SemaphoreSlim(0);
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await DiscardAsync(context);
            context.Response.ContentType = "text/event-stream";
            await context.Response.WriteAsync("data: 1\n\ndata: 2", Ct);
            await context.Response.Body.FlushAsync(Ct);
            await read.WaitAsync(Ct);
            if (!breaks)
                await Task.Delay(Timeout.Infinite, context.RequestAborted);
            context.Abort();
        });
        using var request = new HttpRequestMessage(HttpMethod.Post, Completions) { Content = Json("{\"model\":\"m\",\"stream\":true}") };

        using var answer = await host.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);

        using var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(Ct));
        (await reader.ReadLineAsync(Ct)).ShouldBe("data: 1");
        read.Release();
        var rest = await reader.ReadToEndAsync(Ct);
        rest.ShouldStartWith("\ndata: {\"error\":{");
        rest.ShouldEndWith($"\"code\":\"{code}\"}}}}\n\ndata: [DONE]\n\n");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_stream_that_does_not_begin_times_out(bool answers)
    {
        await using var host = await ControlPlane.StartAsync(configuration: "Gateway:FirstByteTimeout=00:00:01");
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            context.Response.ContentType = "text/event-stream";
            if (answers)
                await context.Response.Body.FlushAsync(Ct); // as an engine does that has the request in its queue
            await Task.Delay(Timeout.Infinite, context.RequestAborted);
        });

        using var answer = await host.Client.PostAsync(Completions, Json("{\"model\":\"m\",\"stream\":true}"), Ct);

        await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.GatewayTimeout, "deployment_timeout");
    }

    [Fact]
    public async Task An_engine_that_drops_the_connection_is_unreachable()
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, context =>
        {
            context.Abort();
            return Task.CompletedTask;
        });

        using var answer = await host.Client.PostAsync(Completions, Json("{\"model\":\"m\"}"), Ct);

        await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.BadGateway, "deployment_unreachable");
    }

    [Fact]
    public async Task An_engine_that_is_gone_is_unreachable()
    {
        await using var host = await ControlPlane.StartAsync();
        await using (await StandInEngine.StartAsync(host, DiscardAsync))
        {
        }

        using var answer = await host.Client.PostAsync(Completions, Json("{\"model\":\"m\"}"), Ct);

        await answer.ShouldBeOpenAiErrorAsync(HttpStatusCode.BadGateway, "deployment_unreachable");
    }

    [Fact]
    public async Task A_client_that_leaves_cancels_the_engines_request()
    {
        await using var host = await ControlPlane.StartAsync();
        var (reached, cancelled) = (new TaskCompletionSource(), new TaskCompletionSource());
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await DiscardAsync(context);
            using var registration = context.RequestAborted.Register(cancelled.SetResult);
            reached.SetResult();
            await cancelled.Task;
        });
        using var leave = CancellationTokenSource.CreateLinkedTokenSource(Ct);

        var asked = host.Client.PostAsync(Completions, Json("{\"model\":\"m\"}"), leave.Token);
        await reached.Task.WaitAsync(Ct);
        await leave.CancelAsync();

        await Should.ThrowAsync<OperationCanceledException>(() => asked);
        await cancelled.Task.WaitAsync(TimeSpan.FromSeconds(30), Ct);
    }

    [Theory]
    [InlineData("Content-Type: application/json\nContent-Type: text/plain\n", "415")]
    [InlineData("Content-Type: application/json\nX-Request-Id: a\nX-Request-Id: b\nAccept: a/b\nAccept: c/d\nUser-Agent: a\nUser-Agent: b\n", "200")]
    [InlineData("Content-Type: application/json\nAuthorization: Bearer a\nAuthorization: Bearer b\n", "200")]
    [InlineData("Content-Type: application/json\nX-Request-Id: \u00ff\u0001\n", "400")]
    public async Task Headers_that_come_twice_break_nothing(string headers, string status)
    {
        await using var host = await ControlPlane.StartAsync();
        await using var engine = await StandInEngine.StartAsync(host, DiscardAsync);

        var answer = await RawHttp.SendAsync(host.Url,
            $"POST /v1/chat/completions HTTP/1.1\nHost: localhost\nConnection: close\n{headers}Content-Length: 13\n\n{{\"model\":\"m\"}}", halfClose: false, Ct);

        answer.ShouldStartWith($"HTTP/1.1 {status} ");
    }

    private static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    private static Task DiscardAsync(HttpContext context) => context.Request.Body.CopyToAsync(Stream.Null, Ct);

    private sealed class BrokenForwarder : IHttpForwarder
    {
        public ValueTask<ForwarderError> SendAsync(
            HttpContext context, string destinationPrefix, HttpMessageInvoker httpClient, ForwarderRequestConfig requestConfig, HttpTransformer transformer) =>
            throw new InvalidOperationException("a bug");
    }

    /// <summary>Keeps the exceptions that are logged.</summary>
    private sealed class LogLines : ILoggerProvider, ILogger
    {
        public ConcurrentQueue<Exception> Exceptions { get; } = [];

        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (exception is not null)
                Exceptions.Enqueue(exception);
        }

        public void Dispose()
        {
        }
    }
}
