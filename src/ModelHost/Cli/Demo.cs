using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using ModelHost.Core;
using ModelHost.Core.Deployments;
using ModelHost.Features.ApiKeys;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Hosting;

namespace ModelHost.Cli;

/// <summary>Serves a model on the simulator, and says how to use it.</summary>
internal sealed partial class Demo(
    DeploymentReads reads, DeploymentStarts starts, DeploymentService deployments, ApiKeyService keys, NodeRegistry nodes, IServer server, DataFolder folder,
    IHostApplicationLifetime lifetime, TimeProvider time, ILogger<Demo> logger)
    : BackgroundService
{
    private const string Model = "demo/tiny-chat";
    private const string Name = "demo";
    private const int Port = 8001;
    private const string KeyFile = "demo-key";
    private static readonly TimeSpan KeyLifetime = TimeSpan.FromDays(1);
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(100);

    /// <summary>Adds the demo to a host.</summary>
    public static void Add(WebApplicationBuilder builder) => builder.Services.AddHostedService<Demo>();

    private string Url => server.Features.Get<IServerAddressesFeature>()!.Addresses.First();

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (!await lifetime.StartedAsync(time, stoppingToken))
            return;
        int? id = null;
        while (!stoppingToken.IsCancellationRequested)
        {
            var model = (await ListAsync(stoppingToken)).FirstOrDefault(d => id is null ? d.ModelName == Model : d.Id == id);
            if (model?.Status == DeploymentStatus.Running.ToWire())
            {
                await MakeKeyAsync(model.Id, stoppingToken);
                Announce(model);
                await KeepKeyAsync(model.Id, stoppingToken);
                return;
            }
            if (model is null || model.Status is "stopped" or "error" or "expired")
            {
                if (id is not null)
                {
                    LogFailed(model?.LastError);
                    return;
                }
                if (model is not null)
                    await deployments.DeleteAsync(model.Id, stoppingToken);
                var started = await StartModelAsync(stoppingToken);
                id = started?.Match<int?>(made => made.Id, failure => { LogFailed(failure.Detail); return null; });
                if (started is { Failure: not null })
                    return;
            }
            await Task.Delay(Poll, time, stoppingToken);
        }
    }

    private async Task<IReadOnlyList<DeploymentRead>> ListAsync(CancellationToken cancellationToken) =>
        (await reads.ListAsync(new DeploymentQuery(), cancellationToken)).Match(page => page.Deployments, failure => throw new InvalidOperationException(failure.Detail));

    /// <returns>Null: the node has not answered yet.</returns>
    private async Task<Result<DeploymentRead>?> StartModelAsync(CancellationToken cancellationToken)
    {
        if (nodes.All.FirstOrDefault() is not { Report: { } report } node || (report.GpuError.Length > 0 && report.Gpus.All(gpu => gpu.Stale.Length > 0)))
            return null;
        return await starts.StartAsync(new DeploymentStart
        {
            NodeId = node.Id,
            ModelName = Model,
            Port = BindingAddress.Parse(Url).Port == Port ? Port + 1 : Port, // where the demo itself does not listen
            GpuMemoryFraction = 0.05,
            SkipResourceCheck = true,
            Owner = "demo",
            Backend = "simulator",
            EngineArgs = new Dictionary<string, System.Text.Json.JsonElement> { ["served_model_name"] = System.Text.Json.JsonSerializer.SerializeToElement(Name) },
        }, IdempotencyClaim.None, cancellationToken);
    }

    /// <summary>Makes a key for the demo's model alone, and leaves it where the printed line finds it: no key stands on a screen.</summary>
    private async Task MakeKeyAsync(int id, CancellationToken cancellationToken)
    {
        var made = await keys.CreateAsync(
            new CreateApiKeyRequest { Label = "demo", TtlSeconds = (int)KeyLifetime.TotalSeconds, DeploymentIds = [id] }, makerId: null, cancellationToken);
        if (made.TryGet(out var key, out var failure))
            folder.WriteSecret(KeyFile, key.Key);
        else
            LogNoKey(failure.Detail);
    }

    private async Task KeepKeyAsync(int id, CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(KeyLifetime / 2, time);
        while (await timer.WaitForNextTickAsync(cancellationToken))
            await MakeKeyAsync(id, cancellationToken);
    }

    private void Announce(DeploymentRead model)
    {
        var url = Url;
        var keyFile = folder.File(KeyFile);
        var quoted = $"'{keyFile.Replace("'", @"'\''", StringComparison.Ordinal)}'";
        Console.WriteLine($$"""

            ModelHost is ready at {{url}} and serves the model "{{Name}}" on the built-in simulator.

              curl {{url}}/v1/chat/completions -H "Authorization: Bearer $(cat {{quoted}})" -H 'Content-Type: application/json' -d '{"model":"{{Name}}","messages":[{"role":"user","content":"Hello!"}]}'

              Swagger UI   {{url}}/swagger
              OpenAI SDKs  base URL {{url}}/v1, API key in {{keyFile}}
              Data         {{folder.Path}}

            Ctrl-C ends ModelHost; the model stays up, and the next start finds it. To end the model too:
              curl -X POST {{url}}/api/deployments/stop/{{model.Id}}

            """);
    }

    [LoggerMessage(1902, LogLevel.Warning, "The demo's key could not be made: {Reason}")]
    private partial void LogNoKey(string reason);

    [LoggerMessage(1901, LogLevel.Error, "The demo's model could not be started: {Reason}")]
    private partial void LogFailed(string? reason);
}
