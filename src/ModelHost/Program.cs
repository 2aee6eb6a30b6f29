using ModelHost.Simulator;

if (args is ["simulate", .. var simulatorArguments])
    return await SimulatorCommand.RunAsync(simulatorArguments);

var builder = WebApplication.CreateSlimBuilder(args);
var app = builder.Build();
app.MapGet("/health", () => TypedResults.Ok(new { status = "ok" }));
await app.RunAsync();
return 0;
