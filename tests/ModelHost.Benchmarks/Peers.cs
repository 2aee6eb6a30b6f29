using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.Agent.Runtimes;
using ModelHost.TestKit;

namespace ModelHost.Benchmarks;

/// <summary>One simulated engine, and everything that can stand before it; and its like on a remote node, behind a control plane of its own.</summary>
internal sealed class Peers : IAsyncDisposable
{
    private readonly TestNode _node;
    private readonly List<Peer> _all = [];
    private readonly ModelHostProcess _host;
    private readonly Dictionary<string, string> _keys = [];
    private RemotePeer? _remote;

    private Peers(TestNode node, ModelHostProcess host) => (_node, _host) = (node, host);

    /// <summary>All of them; the engine itself first.</summary>
    public IReadOnlyList<Peer> All => _all;

    /// <summary>The gateway under test.</summary>
    public Peer Gateway => _all.First(peer => peer.Name == "ModelHost");

    /// <summary>What the gateway is measured against: a bare YARP forwarder, and without one the gateway itself.</summary>
    public Peer Reference => _all.FirstOrDefault(peer => peer.Name == "bare YARP") ?? Gateway;

    /// <summary>The gateway with its engine behind an agent.</summary>
    public Peer Remote => _all.First(peer => peer.Name == RemotePeer.Name);

    /// <summary>Key of the engine's run, which everything but the gateways passes on to it.</summary>
    private string EngineKey { get; set; } = "";

    /// <summary>The key that a peer is asked with: of a gateway a permanent API key, without which it is closed and under which it counts what is used.</summary>
    public string Key(Peer peer) => _keys.GetValueOrDefault(peer.Name, EngineKey);

    /// <summary>Starts the engine under ModelHost, and the peers in front of it.</summary>
    /// <param name="remoteOnly">Whether there are no other programs among them: only the gateway, with and without an agent.</param>
    /// <param name="millisecondsPerToken">How long the engine takes for a token.</param>
    public static async Task<Peers> StartAsync(bool remoteOnly, int millisecondsPerToken = 0)
    {
        var node = new TestNode();
        var clock = Stopwatch.StartNew();
        var host = await ModelHostProcess.ServeAsync(node, TestPorts.Free());
        var startedIn = await AnsweredAsync(host.Url, clock);
        var peers = new Peers(node, host);
        try
        {
            using var client = new HttpClient { BaseAddress = host.Url };
            peers._keys["ModelHost"] = await ServeModelAsync(client, await client.NodeAsync("process"), millisecondsPerToken);
            using var sidecar = JsonDocument.Parse(await File.ReadAllBytesAsync(Directory.GetFiles(Path.Combine(node.Data, "engines"), "*.json").Single()));
            peers.EngineKey = Libc.Environment(sidecar.RootElement.GetProperty("pid").GetInt32())["VLLM_API_KEY"];
            var engine = $"http://127.0.0.1:{sidecar.RootElement.GetProperty("engine_port").GetInt32()}";
            peers._all.Add(new Peer("direct", new Uri(engine), [], default));
            peers._all.Add(new Peer("ModelHost", host.Url, [Process.GetProcessById(host.Id)], startedIn, withChildren: false));
            peers._remote = await RemotePeer.StartAsync(millisecondsPerToken);
            peers._keys[RemotePeer.Name] = peers._remote.Key;
            peers._all.Add(peers._remote.Peer);
            if (remoteOnly)
                return peers;
            await peers.AddAsync("bare YARP", port => (Path.Combine(AppContext.BaseDirectory, "ModelHost.Benchmarks"), ["bare-yarp", engine, port]));
            await peers.AddAsync("nginx", port => ("nginx", ["-p", node.Data, "-c", peers.NginxConfiguration(engine, port)]));
            await peers.AddAsync("HAProxy", port => ("haproxy", ["-db", "-q", "-f", peers.HaproxyConfiguration(engine, port)]));
            return peers;
        }
        catch
        {
            await peers.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var peer in _all.Where(peer => !_keys.ContainsKey(peer.Name)))
            peer.Dispose();
        if (_remote is not null)
            await _remote.DisposeAsync();
        await _host.DisposeAsync();
        _node.Dispose();
    }

    private async Task AddAsync(string name, Func<string, (string Command, string[] Arguments)> command)
    {
        var port = TestPorts.Free().ToString(CultureInfo.InvariantCulture);
        var (program, arguments) = command(port);
        var clock = Stopwatch.StartNew();
        Process process;
        try
        {
            process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true, RedirectStandardOutput = true })!;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            Console.Error.WriteLine($"{name} is left out: {program} is not installed");
            return;
        }
        var url = new Uri($"http://127.0.0.1:{port}");
        _all.Add(new Peer(name, url, [process], await AnsweredAsync(url, clock)));
    }

    /// <summary>Starts the engine on a node, and waits until it is served.</summary>
    /// <returns>A permanent API key.</returns>
    internal static async Task<string> ServeModelAsync(HttpClient client, int node, int millisecondsPerToken)
    {
        var request = Api.StartRequest(node, model: "bench/chat", change: r =>
        {
            r["extra_args"] = new JsonArray("--disable-uvicorn-access-log", "--max-num-seqs", "4096");
            r["env_vars"] = new JsonArray(
                new JsonObject { ["key"] = "VLLM_SIM_MODEL_MAX_LEN", ["value"] = "1000000" },
                new JsonObject { ["key"] = "VLLM_SIM_ITL_MS", ["value"] = $"{millisecondsPerToken}" });
        });
        await client.StatusAsync(await client.StartModelAsync(request), "running");
        using var made = await client.PostAsJsonAsync("/api/api-keys", new { label = "benchmark" });
        return (await made.EnsureSuccessStatusCode().Content.ReadFromJsonAsync<JsonElement>()).GetProperty("key").GetString()!;
    }

    internal static async Task<TimeSpan> AnsweredAsync(Uri url, Stopwatch clock)
    {
        using var client = new HttpClient();
        await Deadline.UntilAsync(async () =>
        {
            try
            {
                return (int)(await client.GetAsync(new Uri(url, "/health"))).StatusCode;
            }
            catch (HttpRequestException)
            {
                return 0;
            }
        }, status => status > 0, what: url.ToString());
        return clock.Elapsed;
    }

    private string NginxConfiguration(string engine, string port) => Write("nginx.conf", $$"""
        daemon off;
        worker_processes auto;
        pid {{_node.Data}}/nginx.pid;
        error_log /dev/null crit;
        events { worker_connections 8192; }
        http {
            access_log off;
            client_max_body_size 64m;
            client_body_temp_path {{_node.Data}}/nginx-body;
            proxy_temp_path {{_node.Data}}/nginx-proxy;
            fastcgi_temp_path {{_node.Data}}/nginx-f; uwsgi_temp_path {{_node.Data}}/nginx-u; scgi_temp_path {{_node.Data}}/nginx-s;
            keepalive_requests 1000000;
            upstream engine { server {{new Uri(engine).Authority}}; keepalive 256; keepalive_timeout 3s; keepalive_requests 1000000; }
            server {
                listen 127.0.0.1:{{port}};
                location / { proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_request_buffering off; }
            }
        }
        """);

    private string HaproxyConfiguration(string engine, string port) => Write("haproxy.cfg", $"""
        global
            maxconn 8192
        defaults
            mode http
            timeout connect 5s
            timeout client 10m
            timeout server 10m
            option http-keep-alive
            http-reuse always
        frontend in
            bind 127.0.0.1:{port}
            default_backend engine
        backend engine
            server engine {new Uri(engine).Authority} pool-purge-delay 3s

        """);

    private string Write(string name, string text)
    {
        var path = Path.Combine(_node.Data, name);
        File.WriteAllText(path, text);
        return path;
    }
}
