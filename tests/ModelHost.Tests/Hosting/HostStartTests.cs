using Microsoft.Extensions.Hosting.Internal;
using Microsoft.Extensions.Logging.Abstractions;
using ModelHost.Hosting;

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

        (await waiting.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken)).ShouldBe(starts);
    }
}
