using System.Net;
using System.Net.Http.Json;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting.Internal;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Core.Routing;
using ModelHost.Gateway;
using ModelHost.Hosting;
using ModelHost.TestKit;

namespace ModelHost.Tests.Hosting;

public sealed class HostStartTests
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Waiting_for_a_start_ends_with_it_or_with_the_host(bool starts)
    {
        var lifetime = new ApplicationLifetime(NullLogger<ApplicationLifetime>.Instance);
        using var stopping = new CancellationTokenSource();
        var waiting = lifetime.StartedAsync(TimeProvider.System, stopping.Token);
        waiting.IsCompleted.ShouldBeFalse();

        if (starts)
            lifetime.NotifyStarted();
        else
            await stopping.CancelAsync();

        (await waiting.WaitAsync(TimeSpan.FromSeconds(120), TestContext.Current.CancellationToken)).ShouldBe(starts);
    }

    [Fact]
    public async Task Models_that_run_are_known_before_anybody_can_ask_for_them()
    {
        using var node = new TestNode();
        await using (var host = await ControlPlane.StartAsync(node))
            await host.Client.StatusAsync(await host.Client.StartModelAsync(Api.StartRequest(await host.Client.NodeAsync("process"))), "running");

        await using var second = await ControlPlane.StartAsync(node);
        var found = second.Services.GetRequiredService<RouteSource>().Current.Find("demo/tiny-chat");
        using var answer = await second.Client.PostAsJsonAsync("/v1/chat/completions", Api.Chat("demo/tiny-chat", maxTokens: 3), TestContext.Current.CancellationToken);
        await second.Client.StopModelAsync((await second.Client.JsonAsync("/api/deployments"))[0].GetProperty("id").GetInt32());

        (found.Route is not null || found.Miss == RouteMiss.Loading).ShouldBeTrue(found.Miss.ToString());
        answer.StatusCode.ShouldBe(HttpStatusCode.OK);
    }
}
