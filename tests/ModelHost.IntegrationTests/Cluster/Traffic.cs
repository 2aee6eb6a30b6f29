using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net.Http.Json;
using ModelHost.TestKit;

namespace ModelHost.IntegrationTests.Cluster;

/// <summary>Asks a model again and again until it is ended, and keeps what came of it.</summary>
internal sealed class Traffic : IAsyncDisposable
{
    private readonly ConcurrentQueue<string> _outcomes = new();
    private readonly CancellationTokenSource _ended = new();
    private readonly Task _asking;
    private readonly Process? _process;

    private Traffic(Func<Traffic, Task> ask, Process? process = null)
    {
        _process = process;
        _asking = ask(this);
    }

    /// <summary>Answers that were as they should be.</summary>
    public int Served => _outcomes.Count(outcome => outcome == "200");

    /// <summary>What came instead of such an answer: a status, 000 for no answer, or an error.</summary>
    public IReadOnlyList<string> Failures => [.. _outcomes.Where(outcome => outcome != "200")];

    public override string ToString() => string.Join(' ', _outcomes);

    /// <summary>Through the gateway.</summary>
    public static Traffic Through(HttpClient gateway, string model) => new(traffic => Task.Run(async () =>
    {
        while (!traffic._ended.IsCancellationRequested)
        {
            try
            {
                using var answer = await gateway.PostAsJsonAsync("/v1/chat/completions", Api.Chat(model, maxTokens: 2), traffic._ended.Token);
                traffic._outcomes.Enqueue($"{(int)answer.StatusCode}");
                await Task.Delay(100, traffic._ended.Token);
            }
            catch (OperationCanceledException)
            {
                return;
            }
            catch (HttpRequestException e)
            {
                traffic._outcomes.Enqueue(e.Message);
            }
        }
    }));

    /// <summary>Past the control plane, to the public port of a deployment, by a client that is on its node.</summary>
    public static Traffic Direct(LabNode node, int port, string key, string model)
    {
        var process = Curl(node, $$"""
            while :; do
                curl --noproxy '*' -s -o /dev/null -m 10 -w '%{http_code}\n' -H 'Authorization: Bearer {{key}}' -H 'Content-Type: application/json' \
                    -d '{{Api.Chat(model, maxTokens: 2).ToJsonString()}}' http://{{node.Address}}:{{port}}/v1/chat/completions
                sleep 0.2
            done
            """);
        return new(async traffic =>
        {
            while (await process.StandardOutput.ReadLineAsync() is { } line)
                traffic._outcomes.Enqueue(line);
        }, process);
    }

    /// <summary>One long stream to the public port.</summary>
    /// <returns>All of it, when it has ended.</returns>
    public static async Task<string> DirectStreamAsync(LabNode node, int port, string key, string model, int tokens)
    {
        using var process = Curl(node, $"""
            exec curl --noproxy '*' -s -N -m 300 -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
                -d '{Api.Chat(model, stream: true, maxTokens: tokens).ToJsonString()}' http://{node.Address}:{port}/v1/chat/completions
            """);
        return await process.StandardOutput.ReadToEndAsync();
    }

    /// <summary>Asks no more.</summary>
    public async Task EndAsync()
    {
        await _ended.CancelAsync();
        if (_process is { HasExited: false })
            _process.Kill(entireProcessTree: true);
        await _asking;
    }

    public async ValueTask DisposeAsync()
    {
        await EndAsync();
        _process?.Dispose();
        _ended.Dispose();
    }

    private static Process Curl(LabNode node, string script) =>
        Process.Start(new ProcessStartInfo("nsenter", [$"--net=/run/netns/{node.Name}", "--", "bash", "-c", script]) { RedirectStandardOutput = true })!;
}
