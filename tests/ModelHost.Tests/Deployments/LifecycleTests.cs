using System.Net.Http.Json;
using ModelHost.TestKit;

namespace ModelHost.Tests.Deployments;

/// <summary>A deployment from start to end, on the simulator as a process.</summary>
public sealed class LifecycleTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Started_model_answers_through_the_gateway_and_is_gone_after_stop()
    {
        await using var host = await ControlPlane.StartAsync();
        var id = await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process")));
        await host.Client.StatusAsync(id, "running");

        using var answer = await host.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 5), Ct);
        answer.EnsureSuccessStatusCode();
        await host.Client.StopModelAsync(id);

        Directory.GetFiles(Path.Combine(host.Node.Data, "engines")).ShouldBeEmpty();
    }
}
