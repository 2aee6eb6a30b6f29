using ModelHost.Cli;

return await CommandLine.RunAsync(args);
