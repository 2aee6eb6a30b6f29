using System.Net;
using System.Net.Sockets;
using System.Reflection;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using ModelHost.Agent.Http;
using ModelHost.Core.Deployments;
using ModelHost.Core.Routing;
using ModelHost.Gateway;
using ModelHost.Rpc;
using ModelHost.TestKit;
using ModelHost.Tests.ApiKeys;
using ModelHost.Tests.Reconcile;
using Yarp.ReverseProxy.Forwarder;

namespace ModelHost.Tests.Gateway;

/// <summary>Every error that <c>/v1</c> answers with: its status, and OpenAI's four fields.</summary>
public sealed class ErrorTableTests
{
    private const string Chat = "/v1/chat/completions", Speech = "/v1/audio/transcriptions", JsonType = "application/json", Form = "multipart/form-data; boundary=b";
    private const string Invalid = "invalid_request_error", Upstream = "upstream_error";
    private static readonly string Large = new('x', 70_000);

    /// <summary>All of them, in the order of docs/api.md; what no row shows fails the last test.</summary>
    private static readonly Row[] Rows =
    [
        new("no JSON", "plain", "POST", Chat, JsonType, "{", 400, Invalid, "invalid_json", null),
        new("an empty body", "plain", "POST", Chat, JsonType, "", 400, Invalid, "invalid_json", null),
        new("bytes that are no text", "plain", "POST", Chat, JsonType, "\u001f\u0008", 400, Invalid, "invalid_json", null),
        new("two models", "plain", "POST", Chat, JsonType, """{"model":"m","model":"n"}""", 400, Invalid, "invalid_json", "model"),
        new("no model", "plain", "POST", Chat, JsonType, """{"messages":[]}""", 400, Invalid, "missing_model", "model"),
        new("a model that is no text", "plain", "POST", "/v1/responses", JsonType, """{"model":["m"]}""", 400, Invalid, "missing_model", "model"),
        new("no form", "plain", "POST", Speech, Form, "--b\r\nX: y", 400, Invalid, "invalid_form", null),
        new("a form without a model", "plain", "POST", Speech, Form, "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--", 400, Invalid, "missing_model", "model"),
        new("an unclear stream", "plain", "POST", Chat, JsonType, """{"model":"m","stream":"yes"}""", 400, Invalid, "invalid_type", "stream"),
        new("unclear options", "plain", "POST", "/v1/completions", JsonType, """{"model":"m","stream":true,"stream_options":1}""", 400, Invalid, "invalid_type", "stream_options"),
        new("a field that a backend cannot be told", "plain", "POST", Chat, JsonType, """{"model":"backend","messages":[]}""", 400, Invalid, "invalid_value", "messages"),
        new("a request that a backend refuses", "plain", "POST", Chat, JsonType, """{"model":"backend","messages":[{"role":"user","content":"InvalidArgument"}]}""", 400, Invalid, "backend_refused", null),
        new("a model that two serve", "plain", "POST", Chat, JsonType, """{"model":"org/two"}""", 400, Invalid, "model_ambiguous", "model"),
        new("no key", "keys", "POST", Chat, JsonType, """{"model":"m"}""", 401, Invalid, "invalid_api_key", null),
        new("no key and no such route", "keys", "GET", "/v1/nothing", null, null, 401, Invalid, "invalid_api_key", null),
        new("a wrong key", "keys", "POST", Chat, JsonType, """{"model":"m"}""", 401, Invalid, "invalid_api_key", null, "mh_sk_0000000000000000000000000000000000000000c0c0c0c0"),
        new("the admin key", "keys", "GET", "/v1/models", null, null, 401, Invalid, "invalid_api_key", null, "admin"),
        new("a key for other models", "keys", "POST", Chat, JsonType, """{"model":"m"}""", 403, Invalid, "model_forbidden", "model", "scoped"),
        new("a key for other models, in a form", "keys", "POST", Speech, Form, "--b\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--b--", 403, Invalid, "model_forbidden", "model", "scoped"),
        new("a card of another model", "keys", "GET", "/v1/models/m", null, null, 403, Invalid, "model_forbidden", "model", "scoped"),
        new("a key for metrics", "keys", "POST", Chat, JsonType, """{"model":"m"}""", 403, Invalid, "role_forbidden", null, "metrics"),
        new("an unknown model", "plain", "POST", "/v1/embeddings", JsonType, """{"model":"nobody"}""", 404, Invalid, "model_not_found", "model"),
        new("an unknown card", "plain", "GET", "/v1/models/nobody", null, null, 404, Invalid, "model_not_found", "model"),
        new("a model that is stopped", "plain", "POST", Chat, JsonType, """{"model":"stopped"}""", 404, Invalid, "model_not_found", "model"),
        new("an unknown route", "plain", "POST", "/v1/nothing", JsonType, "{}", 404, Invalid, "not_found", null),
        new("another method", "plain", "DELETE", Chat, null, null, 404, Invalid, "not_found", null),
        new("too large", "plain", "POST", Chat, JsonType, $$"""{"model":"m","x":"{{Large}}{{Large}}"}""", 413, Invalid, "request_too_large", null),
        new("a model that comes too late", "plain", "POST", Chat, JsonType, $$"""{"x":"{{Large}}","model":"m"}""", 413, Invalid, "request_too_large", null),
        new("another type", "plain", "POST", Chat, "text/plain", """{"model":"m"}""", 415, Invalid, "unsupported_media_type", null),
        new("no type", "plain", "POST", Chat, null, """{"model":"m"}""", 415, Invalid, "unsupported_media_type", null),
        new("JSON for a form", "plain", "POST", Speech, JsonType, """{"model":"m"}""", 415, Invalid, "unsupported_media_type", null),
        new("a form without its boundary", "plain", "POST", Speech, "multipart/form-data", "--b--", 415, Invalid, "unsupported_media_type", null),
        new("a bug of ours", "bug", "POST", Chat, JsonType, """{"model":"m"}""", 500, "server_error", "internal_error", null),
        new("something that a backend cannot do", "plain", "POST", "/v1/score", JsonType, """{"model":"backend","text_1":"a","text_2":["b"]}""", 501, Upstream, "not_supported", null),
        new("a backend that fails", "plain", "POST", Chat, JsonType, """{"model":"backend","messages":[{"role":"user","content":"Internal"}]}""", 502, Upstream, "backend_failed", null),
        new("an engine that is gone", "plain", "POST", Chat, JsonType, """{"model":"gone"}""", 502, Upstream, "deployment_unreachable", null),
        new("an engine that hangs up", "plain", "POST", Chat, JsonType, """{"model":"m","do":"hang up"}""", 502, Upstream, "deployment_unreachable", null),
        new("an engine that hangs up in a stream", "plain", "POST", Chat, JsonType, """{"model":"m","do":"hang up","stream":true}""", 502, Upstream, "deployment_unreachable", null),
        new("an engine that hangs up after its headers", "plain", "POST", Chat, JsonType, """{"model":"m","do":"headers","stream":true}""", 502, Upstream, "deployment_unreachable", null),
        new("an engine that speaks something else", "plain", "POST", Chat, JsonType, """{"model":"babble"}""", 502, Upstream, "deployment_unreachable", null),
        new("a node that is silent", "plain", "POST", Chat, JsonType, """{"model":"unreachable"}""", 502, Upstream, "deployment_unreachable", null),
        new("a gateway that is off", "off", "POST", Chat, JsonType, """{"model":"m"}""", 503, Upstream, "gateway_disabled", null),
        new("a gateway that is off, unknown route", "off", "GET", "/v1/nothing", null, null, 503, Upstream, "gateway_disabled", null),
        new("a model that loads", "late", "POST", Chat, JsonType, """{"model":"loading"}""", 503, Upstream, "model_loading", "model"),
        new("a model that cannot be started", "plain", "POST", Chat, JsonType, """{"model":"resting"}""", 503, Upstream, "model_start_failed", "model"),
        new("the end", "stopping", "POST", Chat, JsonType, """{"model":"m"}""", 503, Upstream, "shutting_down", null),
        new("no connection in time", "late", "POST", Chat, JsonType, """{"model":"full"}""", 504, Upstream, "deployment_timeout", null),
        new("no answer in time", "late", "POST", Chat, JsonType, """{"model":"m","do":"wait"}""", 504, Upstream, "deployment_timeout", null),
        new("no stream in time", "late", "POST", Chat, JsonType, """{"model":"m","do":"wait","stream":true}""", 504, Upstream, "deployment_timeout", null),
        new("no first byte in time", "late", "POST", Chat, JsonType, """{"model":"m","do":"begin","stream":true}""", 504, Upstream, "deployment_timeout", null),
    ];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Requests_that_cannot_be_served_say_why()
    {
        await using var host = await StartAsync();
        await using var engine = await EngineAsync(host);
        await ShouldAnswerAsync(host, "plain");
    }

    [Fact]
    public async Task What_takes_too_long_is_told_as_such()
    {
        await using var host = await StartAsync(isPatient: false);
        await using var engine = await EngineAsync(host);
        await ShouldAnswerAsync(host, "late");
    }

    [Fact]
    public async Task With_keys_on_so_do_those_that_may_not()
    {
        await using var host = await StartAsync();
        await using var engine = await EngineAsync(host);
        await host.Client.MakeKeyAsync();
        var keys = new Dictionary<string, string>
        {
            ["scoped"] = (await host.Client.MakeKeyAsync("""{"label":"a","models":["other"]}""")).Key,
            ["metrics"] = (await host.Client.MakeKeyAsync("""{"label":"a","roles":["metrics"]}""")).Key,
            ["admin"] = host.AdminKey,
        };
        await ShouldAnswerAsync(host, "keys", keys);
        engine.Requests.ShouldBe(0);
    }

    [Fact]
    public async Task A_bug_is_told_as_such()
    {
        await using var host = await StartAsync(services => services.AddSingleton<IHttpForwarder, BrokenForwarder>());
        await using var engine = await EngineAsync(host);
        await ShouldAnswerAsync(host, "bug");
    }

    [Fact]
    public async Task A_gateway_that_is_off_says_so()
    {
        await using var host = await StartAsync();
        using (var off = await host.Client.PutAsync(new Uri("/api/settings", UriKind.Relative), new StringContent("""{"gateway_enabled":false}""", Encoding.UTF8, JsonType), Ct))
            off.EnsureSuccessStatusCode();
        await ShouldAnswerAsync(host, "off");
    }

    [Fact]
    public async Task A_gateway_that_ends_says_so_and_closes_its_connections()
    {
        await using var host = await StartAsync();
        var held = new TaskCompletionSource();
        await using var engine = await StandInEngine.StartAsync(host, async context =>
        {
            await held.Task;
            await context.Response.WriteAsync("{}", Ct);
        });
        var underWay = host.Client.PostAsync(new Uri(Chat, UriKind.Relative), new StringContent("""{"model":"m"}""", Encoding.UTF8, JsonType), Ct);
        await Deadline.UntilAsync(() => engine.Requests == 1);
        // the connection is there before the end, as a client's are; the listener takes no new ones at its very end
        (await host.Client.GetAsync(new Uri("/v1/models", UriKind.Relative), Ct)).EnsureSuccessStatusCode();
        var drain = host.Services.GetRequiredService<GatewayDrain>();
        var drained = drain.StoppingAsync(Ct);

        await ShouldAnswerAsync(host, "stopping", closes: true);
        (await host.Client.GetAsync(new Uri("/readyz", UriKind.Relative), Ct)).StatusCode.ShouldBe(HttpStatusCode.ServiceUnavailable);
        drained.IsCompleted.ShouldBeFalse("a request is under way");
        held.SetResult();

        (await underWay).StatusCode.ShouldBe(HttpStatusCode.OK);
        await drained.WaitAsync(TimeSpan.FromSeconds(30), Ct);
    }

    /// <summary>An error that is added without a row here is not known to be told as it should be.</summary>
    [Fact]
    public void No_error_is_missing()
    {
        var all = typeof(OpenAiErrors).GetMethods(BindingFlags.Public | BindingFlags.Static).Where(method => method.ReturnType == typeof(OpenAiError))
            .Select(method => (OpenAiError)method.Invoke(null, [.. method.GetParameters().Select(parameter => parameter.Name == "field" ? "messages" : Any(parameter.ParameterType))])!)
            .Select(error => (error.Type, error.Param, error.Code)).Distinct();

        Rows.Select(row => (row.Type, row.Param, row.Code)).Distinct().ShouldBe(all, ignoreOrder: true);

        static object Any(Type type) => type == typeof(string) ? "x" : type == typeof(IReadOnlyList<string>) ? Array.Empty<string>() : Activator.CreateInstance(type)!;
    }

    /// <summary>The page for users has the same table.</summary>
    [Fact]
    public void The_documented_errors_are_these()
    {
        var page = File.ReadAllLines(Path.Combine(RealDocker.RepositoryRoot, "docs", "api.md"));
        var table = page.SkipWhile(line => line != "### Errors of /v1").TakeWhile(line => !line.StartsWith("## ", StringComparison.Ordinal))
            .Where(line => line.StartsWith("| ", StringComparison.Ordinal) && line.Contains('`', StringComparison.Ordinal)).Select(line => line.Split('|', StringSplitOptions.TrimEntries))
            .Where(cells => int.TryParse(cells[1], out _)).Select(cells => (int.Parse(cells[1]), cells[2].Trim('`')));

        table.ShouldBe(Rows.Select(row => (row.Status, row.Code)).Distinct(), ignoreOrder: true);
    }

    /// <summary>Starts a host whose deadlines pass soon where the test is about them, and else not before it fails.</summary>
    private static Task<ControlPlane> StartAsync(Action<IServiceCollection>? configure = null, bool isPatient = true) => ControlPlane.StartAsync(
        configure: services =>
        {
            ScriptedNode.WithoutLocalNode(services);
            configure?.Invoke(services);
        },
        configuration:
        [
            "Gateway:MaxRequestBytes=100000", "Gateway:MaxModelOffset=50000",
            .. isPatient ? ["Gateway:ConnectTimeout=00:01:00", "Gateway:FirstByteTimeout=00:01:00", "Settings:GatewayTimeoutSeconds=60", "Gateway:HoldTimeout=00:01:00"]
                : (string[])["Gateway:ConnectTimeout=00:00:03", "Gateway:FirstByteTimeout=00:00:03", "Settings:GatewayTimeoutSeconds=10", "Gateway:HoldTimeout=00:00:01"],
        ]);

    private static async Task<StandInEngine> EngineAsync(ControlPlane host) => await StandInEngine.StartAsync(host, async context =>
    {
        var body = await JsonSerializer.DeserializeAsync<JsonElement>(context.Request.Body, cancellationToken: Ct);
        switch (body.GetProperty("do").GetString())
        {
            case "wait":
                await Task.Delay(Timeout.Infinite, context.RequestAborted);
                break;
            case "begin" or "headers":
                context.Response.ContentType = "text/event-stream";
                context.Response.Headers.ContentEncoding = "identity";
                context.Response.Headers.ContentDisposition = "attachment";
                await context.Response.Body.FlushAsync(Ct);
                if (body.GetProperty("do").GetString() == "begin")
                    await Task.Delay(Timeout.Infinite, context.RequestAborted);
                break;
        }
        context.Abort();
    });

    private static async Task ShouldAnswerAsync(ControlPlane host, string when, Dictionary<string, string>? keys = null, bool closes = false)
    {
        await using var backend = await Grpc.TestBackend.StartAsync(host, "backend");
        backend.Answer = (asked, _) => Grpc.TestBackend.ThenFail(Enum.Parse<RpcCode>(asked.Messages[0].Content), "the inside");
        using var full = Full();
        using var babbling = new CancellationTokenSource();
        using var babbler = new TcpListener(IPAddress.Loopback, 0);
        babbler.Start();
        var babble = BabbleAsync(babbler, babbling.Token);
        var routes = host.Services.GetRequiredService<RouteSource>();
        ModelRoute Route(string name, DeploymentStatus status, int port = 9, string model = "org/x") =>
            new(-2, status, name, model, [], "tests", DateTimeOffset.UnixEpoch, new Uri($"http://127.0.0.1:{port}"), null);
        routes.Publish(-2,
        [
            Route("one", DeploymentStatus.Running, model: "org/two"), Route("two", DeploymentStatus.Running, model: "org/two"), Route("stopped", DeploymentStatus.Stopped),
            Route("loading", DeploymentStatus.Loading), Route("resting", DeploymentStatus.Stopped) with { StartsOnDemand = true, DeploymentUid = "resting" }, Route("unreachable", DeploymentStatus.Unreachable), Route("gone", DeploymentStatus.Running, TestPorts.Free()),
            Route("full", DeploymentStatus.Running, full.Port), Route("babble", DeploymentStatus.Running, ((IPEndPoint)babbler.LocalEndpoint).Port),
        ], routes.Mark());

        foreach (var row in Rows.Where(row => row.When == when))
            await row.ShouldHoldAsync(host.Client, row.Key is null ? null : keys!.GetValueOrDefault(row.Key, row.Key), closes);

        await babbling.CancelAsync();
        await babble;
    }

    private static async Task BabbleAsync(TcpListener listener, CancellationToken cancellationToken)
    {
        try
        {
            while (true)
            {
                using var client = await listener.AcceptTcpClientAsync(cancellationToken);
                await client.GetStream().WriteAsync("220 mail.example ESMTP\r\n\r\n"u8.ToArray(), cancellationToken);
            }
        }
        catch (OperationCanceledException)
        {
            // the end of the test
        }
    }

    /// <summary>A port whose queue of connections is full, so that the next one waits.</summary>
    private static FullPort Full()
    {
        var port = new FullPort();
        port.Fill();
        return port;
    }

    private sealed class FullPort : IDisposable
    {
        private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        private readonly List<Socket> _waiting = [];

        public int Port => ((IPEndPoint)_listener.LocalEndPoint!).Port;

        public void Fill()
        {
            _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            _listener.Listen(0);
            for (var i = 0; i < 8; i++)
            {
                var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
                _waiting.Add(socket);
                try
                {
                    socket.Connect(_listener.LocalEndPoint!);
                }
                catch (SocketException e) when (e.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
                {
                    // it is in the queue, or waits for room in it
                }
            }
        }

        public void Dispose()
        {
            _waiting.ForEach(socket => socket.Dispose());
            _listener.Dispose();
        }
    }

    private sealed record Row(string Name, string When, string Method, string Path, string? ContentType, string? Body, int Status, string Type, string Code, string? Param, string? Key = null)
    {
        private async Task<HttpResponseMessage> SendAsync(HttpClient client, string? key)
        {
            for (var tries = 1; ; tries++)
            {
                using var request = new HttpRequestMessage(new HttpMethod(Method), Path);
                if (Body is not null)
                {
                    request.Content = new ByteArrayContent(Encoding.UTF8.GetBytes(Body));
                    if (ContentType is not null)
                        request.Content.Headers.TryAddWithoutValidation("Content-Type", ContentType).ShouldBeTrue();
                }
                if (key is not null)
                    request.Headers.Authorization = new("Bearer", key);
                request.Headers.ExpectContinue = Status == 413;
                try
                {
                    return await client.SendAsync(request, Ct);
                }
                catch (HttpRequestException) when (Status == 413 && tries < 10)
                {
                    // a server that refuses a body while it is being sent breaks the pipe, at times before its answer is read
                }
            }
        }

        public async Task ShouldHoldAsync(HttpClient client, string? key, bool closes)
        {
            using var answer = await SendAsync(client, key);

            var text = await answer.Content.ReadAsStringAsync(Ct);
            ((int)answer.StatusCode).ShouldBe(Status, $"{Name}: {text}");
            answer.Content.Headers.ContentType!.MediaType.ShouldBe(JsonType, Name);
            answer.Content.Headers.ContentEncoding.ShouldBeEmpty(Name);
            answer.Content.Headers.ContentDisposition.ShouldBeNull(Name);
            var root = JsonDocument.Parse(text).RootElement;
            root.EnumerateObject().Select(p => p.Name).ShouldBe(["error"], Name);
            var error = root.GetProperty("error");
            error.EnumerateObject().Select(p => p.Name).ShouldBe(["message", "type", "param", "code"], ignoreOrder: true, Name);
            (error.GetProperty("type").GetString(), error.GetProperty("code").GetString(), error.GetProperty("param").GetString()).ShouldBe((Type, Code, Param), Name);
            var message = error.GetProperty("message").GetString()!;
            message.ShouldNotBeNullOrWhiteSpace();
            message.Length.ShouldBeLessThan(300, Name);
            if (key is not null)
                message.ShouldNotContain(key);
            (answer.Headers.ConnectionClose ?? false).ShouldBe(closes || Status == 413, Name);
            // of the pause after a start that failed, what is left of it is told
            if (Code == "model_start_failed")
                answer.Headers.RetryAfter!.Delta!.Value.TotalSeconds.ShouldBeInRange(1, 2, Name);
            else
                answer.Headers.RetryAfter?.Delta.ShouldBe(Code == "model_loading" ? TimeSpan.FromSeconds(2) : null, Name);
        }
    }

    private sealed class BrokenForwarder : IHttpForwarder
    {
        public ValueTask<ForwarderError> SendAsync(
            HttpContext context, string destinationPrefix, HttpMessageInvoker httpClient, ForwarderRequestConfig requestConfig, HttpTransformer transformer) =>
            throw new InvalidOperationException("a bug");
    }
}
