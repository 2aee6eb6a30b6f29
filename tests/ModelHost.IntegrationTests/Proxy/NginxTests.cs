using System.Diagnostics;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using ModelHost.IntegrationTests.Sdk;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Proxy;

/// <summary>Behind nginx, under a prefix, as an operator would put it.</summary>
public sealed class NginxTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Behind_nginx_a_key_is_needed_and_events_arrive_one_by_one()
    {
        await using var served = await ServedModel.StartAsync(knobs: ["VLLM_SIM_ITL_MS=300", "VLLM_SIM_OUTPUT_TOKENS=100000"], configuration: ["Listener:PathBase=/modelhost", "Access:TrustedProxies=127.0.0.1"]);
        using var nginx = await Nginx.StartAsync(served.Host.Url);
        using var client = new HttpClient { BaseAddress = nginx.Url };

        using var open = await client.GetAsync(new Uri("modelhost/health", UriKind.Relative), Ct);
        using var refused = await client.GetAsync(new Uri("modelhost/api/nodes", UriKind.Relative), Ct);
        using var refusedChat = await client.PostAsJsonAsync("modelhost/v1/chat/completions", Api.Chat(ServedModel.Chat), Ct);
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", served.Host.AdminKey);
        using var allowed = await client.GetAsync(new Uri("modelhost/api/nodes", UriKind.Relative), Ct);
        // it goes on for a minute
        using var streamed = await StreamAsync(client, tokens: 200);
        using var events = new StreamReader(await streamed.Content.ReadAsStreamAsync(Ct));
        var first = await events.ReadLineAsync(Ct);
        var finishedAtFirst = await served.EngineCounterAsync("vllm:request_success_total", "finished_reason=\"length\"");
        using var whole = await StreamAsync(client, tokens: 3);
        var rest = await whole.Content.ReadAsStringAsync(Ct);

        open.StatusCode.ShouldBe(HttpStatusCode.OK);
        refused.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        refusedChat.StatusCode.ShouldBe(HttpStatusCode.Unauthorized);
        allowed.StatusCode.ShouldBe(HttpStatusCode.OK);
        first.ShouldNotBeNull().ShouldStartWith("data: ");
        finishedAtFirst.ShouldBe(0, "the engine was still writing when the first event came through");
        rest.ShouldEndWith("data: [DONE]\n\n");
    }

    private static async Task<HttpResponseMessage> StreamAsync(HttpClient client, int tokens)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "modelhost/v1/chat/completions") { Content = JsonContent.Create(Api.Chat(ServedModel.Chat, stream: true, maxTokens: tokens)) };
        return await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Ct);
    }

    private sealed class Nginx : IDisposable
    {
        private readonly Process _process;
        private readonly string _folder;

        private Nginx(Process process, string folder, Uri url) => (_process, _folder, Url) = (process, folder, url);

        public Uri Url { get; }

        public static async Task<Nginx> StartAsync(Uri upstream)
        {
            var program = NodeScripts.Find("nginx", "nginx-light");
            var folder = Directory.CreateTempSubdirectory("mh-nginx-").FullName;
            var url = new Uri($"http://127.0.0.1:{TestPorts.Free()}/");
            await File.WriteAllTextAsync(Path.Combine(folder, "nginx.conf"), $$"""
                daemon off;
                pid {{folder}}/pid;
                error_log {{folder}}/error.log;
                events { }
                http {
                    access_log off;
                    client_body_temp_path {{folder}}/body; proxy_temp_path {{folder}}/proxy; fastcgi_temp_path {{folder}}/f; uwsgi_temp_path {{folder}}/u; scgi_temp_path {{folder}}/s;
                    server {
                        listen 127.0.0.1:{{url.Port}};
                        location /modelhost/ {
                            proxy_pass {{upstream}}modelhost/;
                            proxy_http_version 1.1;
                            proxy_set_header Host $host:$server_port;
                            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                            proxy_set_header X-Forwarded-Proto $scheme;
                        }
                    }
                }
                """);
            var process = Process.Start(new ProcessStartInfo(program, ["-p", folder, "-c", Path.Combine(folder, "nginx.conf")]) { RedirectStandardError = true })!;
            using var client = new HttpClient { BaseAddress = url };
            await Deadline.UntilAsync(async () =>
            {
                try
                {
                    return (await client.GetAsync(new Uri("modelhost/health", UriKind.Relative))).IsSuccessStatusCode;
                }
                catch (HttpRequestException)
                {
                    return false;
                }
            }, up => up, what: "nginx");
            return new Nginx(process, folder, url);
        }

        public void Dispose()
        {
            _process.Kill(entireProcessTree: true);
            _process.WaitForExit();
            _process.Dispose();
            Directory.Delete(_folder, recursive: true);
        }
    }
}
