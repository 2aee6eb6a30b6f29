using ModelHost.Benchmarks;

// The gateway beside its peers, on one machine and in one run:
//   dotnet run -c Release --project tests/ModelHost.Benchmarks -- gateway [SECONDS] [ROUNDS] [remote]
// The gateway alone at full rate, for its memory; fails when that grows or a request fails:
//   dotnet run -c Release --project tests/ModelHost.Benchmarks -- soak [MINUTES]
// The control plane with many deployments on many nodes that only report:
//   dotnet run -c Release --project tests/ModelHost.Benchmarks -- fleet [NODES] [DEPLOYMENTS]
// The control plane with many agents, each with TLS, heartbeats and reports of its own, and one of them a black hole in the end:
//   dotnet run -c Release --project tests/ModelHost.Benchmarks -- agents [NODES]
// A vector store with many embeddings:
//   dotnet run -c Release --project tests/ModelHost.Benchmarks -- stores [VECTORS] [DIMENSION]
// An index of models as large as the largest known, in a process that has read none and in one that has:
//   dotnet run -c Release --project tests/ModelHost.Benchmarks -- gallery [ENTRIES]
return args switch
{
    ["bare-yarp", var url, var port] => await BareYarp.RunAsync(url, int.Parse(port, System.Globalization.CultureInfo.InvariantCulture)),
    ["gateway", .. var rest] => await GatewayBenchmark.RunAsync(
        rest.Length > 0 ? int.Parse(rest[0], System.Globalization.CultureInfo.InvariantCulture) : 8,
        rest.Length > 1 ? int.Parse(rest[1], System.Globalization.CultureInfo.InvariantCulture) : 3,
        rest is [_, _, "remote", ..]),
    ["soak", .. var rest] => await Soak.RunAsync(rest.Length > 0 ? int.Parse(rest[0], System.Globalization.CultureInfo.InvariantCulture) : 10),
    ["fleet", .. var rest] => await Fleet.RunAsync(
        rest.Length > 0 ? int.Parse(rest[0], System.Globalization.CultureInfo.InvariantCulture) : 100,
        rest.Length > 1 ? int.Parse(rest[1], System.Globalization.CultureInfo.InvariantCulture) : 1000),
    ["agents", .. var rest] => await Agents.RunAsync(rest.Length > 0 ? int.Parse(rest[0], System.Globalization.CultureInfo.InvariantCulture) : 200),
    ["stores", .. var rest] => await Stores.RunAsync(
        rest.Length > 0 ? int.Parse(rest[0], System.Globalization.CultureInfo.InvariantCulture) : 100_000,
        rest.Length > 1 ? int.Parse(rest[1], System.Globalization.CultureInfo.InvariantCulture) : 768),
    ["gallery", .. var rest] => GalleryReading.Run(rest.Length > 0 ? int.Parse(rest[0], System.Globalization.CultureInfo.InvariantCulture) : 1700),
    _ => Usage(),
};

static int Usage()
{
    Console.Error.WriteLine("usage: gateway [SECONDS a measurement, default 8] [ROUNDS, default 3] [remote: no other programs] | soak [MINUTES, default 10] | fleet [NODES, default 100] [DEPLOYMENTS, default 1000] | agents [NODES, default 200] | stores [VECTORS, default 100000] [DIMENSION, default 768] | gallery [ENTRIES, default 1700]");
    return 2;
}
