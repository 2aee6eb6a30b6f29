using System.Text;

namespace ModelHost.Tests.Docker;

/// <summary>Says its piece and then nothing, until the client has gone.</summary>
internal sealed class SilentEngine(HandMadeEngine engine, Task asked, Task closedByClient) : IAsyncDisposable
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(120);

    public Uri Endpoint => engine.Endpoint;

    public Task Asked => asked.WaitAsync(Deadline, TestContext.Current.CancellationToken);

    public Task ClosedByClient => closedByClient.WaitAsync(Deadline, TestContext.Current.CancellationToken);

    public static async Task<SilentEngine> StartAsync(string says = "", string contentType = "application/json")
    {
        var asked = new TaskCompletionSource();
        var closed = new TaskCompletionSource();
        return new(await HandMadeEngine.StartAsync(async context =>
        {
            context.RequestAborted.Register(closed.SetResult);
            context.Response.ContentType = contentType;
            await context.Response.Body.WriteAsync(Encoding.UTF8.GetBytes(says));
            await context.Response.Body.FlushAsync();
            asked.SetResult();
            await closed.Task;
        }), asked.Task, closed.Task);
    }

    public ValueTask DisposeAsync() => engine.DisposeAsync();
}
