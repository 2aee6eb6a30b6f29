using System.Text.Json.Nodes;
using Microsoft.OpenApi;
using ModelHost.Core.Backends;
using ModelHost.Features.Deployments;
using ModelHost.Features.Nodes;
using ModelHost.Gateway;

namespace ModelHost.Hosting;

/// <summary>Requests in the OpenAPI document that work on this host when they are sent as they stand.</summary>
internal static class ApiExamples
{
    private const int MaxModels = 20;

    /// <summary>Adds them: one for every running model, and one for every backend that a node can start.</summary>
    public static void Add(OpenApiDocument document, RouteSource routes, NodeRegistry nodes)
    {
        var models = routes.Current.Names.Take(MaxModels).DefaultIfEmpty("your-model").ToArray();
        Set(document, "/v1/chat/completions", models.Select(model => (model, new JsonObject
        {
            ["model"] = model,
            ["messages"] = new JsonArray(new JsonObject { ["role"] = "user", ["content"] = "Hello!" }),
            ["max_completion_tokens"] = 100,
        })));
        Set(document, "/v1/completions", models.Select(model => (model, new JsonObject
        {
            ["model"] = model,
            ["prompt"] = "Once upon a time",
            ["max_tokens"] = 100,
        })));
        Set(document, "/v1/embeddings", models.Select(model => (model, new JsonObject
        {
            ["model"] = model,
            ["input"] = "Hello!",
        })));
        var node = nodes.All.Select(one => one.Id).Order().DefaultIfEmpty(1).First();
        Set(document, "/api/deployments/start", Starts(nodes));
        Set(document, "/api/deployments/plan", Starts(nodes));
        Set(document, "/api/deployments", Starts(nodes));
        Set(document, "/api/deployments/from-manifest", Starts(nodes).Select(start => (start.Name, FromManifest(start.Value))));
        Set(document, "/api/deployments/{id}/restart", [("for a day", new JsonObject { ["owner"] = "me", ["duration_seconds"] = 86400 })]);
        Set(document, "/api/deployments/{id}/extend",
            [("12 more hours", new JsonObject { ["hours"] = 12 }), ("without an end", new JsonObject { ["infinite"] = true })]);
        Set(document, "/api/api-keys",
        [
            ("permanent", new JsonObject { ["label"] = "team" }),
            ("for an hour and one model", new JsonObject { ["label"] = "notebook", ["ttl_seconds"] = 3600, ["models"] = new JsonArray(models[0]) }),
            ("for Prometheus", new JsonObject { ["label"] = "prometheus", ["roles"] = new JsonArray("metrics") }),
        ]);
        Set(document, "/models/apply",
        [
            ("of a gallery", new JsonObject { ["id"] = "qwen3-8b", ["nodes"] = new JsonArray(node) }),
            ("from Hugging Face", new JsonObject
            {
                ["name"] = "qwen3-gguf",
                ["config_file"] = new JsonObject { ["backend"] = "llama-cpp", ["context_size"] = 8192 },
                ["files"] = new JsonArray(new JsonObject { ["filename"] = "qwen3.gguf", ["uri"] = "huggingface://Qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf" }),
                ["nodes"] = new JsonArray(node),
                ["deploy"] = new JsonObject { ["gpu_memory_fraction"] = 0.5, ["start"] = true },
            }),
        ]);
        var gallery = new JsonObject { ["name"] = "own", ["url"] = "file://galleries/index.yaml" };
        Set(document, "/models/galleries", [("in the data folder", gallery)]);
        Set(document, "/models/galleries", [("own", new JsonObject { ["name"] = "own" })], HttpMethod.Delete);
        Set(document, "/backends/apply", [("of a gallery", new JsonObject { ["id"] = "llama-cpp" })]);
        Set(document, "/api/nodes/{id}/backends/install",
        [
            ("of a gallery", new JsonObject { ["backend"] = "llama-cpp" }),
            ("saved by docker save", new JsonObject { ["uri"] = "ocifile://packages/engine.tar", ["name"] = "engine" }),
        ]);
        foreach (var change in (string[])["upgrade", "delete"])
            Set(document, $"/api/nodes/{{id}}/backends/{change}", [("by its name", new JsonObject { ["backend"] = "llama-cpp" })]);
        Set(document, "/api/deployments/{id}/pin", [("protect", new JsonObject { ["pinned"] = true })]);
        Set(document, "/api/deployments/{id}/start-on-demand", [("on", new JsonObject { ["start_on_demand"] = true })]);
    }

    private static JsonObject FromManifest(JsonObject start) => new()
    {
        ["manifest"] = new JsonObject
        {
            ["manifest_version"] = DeploymentManifest.CurrentVersion,
            ["model"] = start["model_name"]!.DeepClone(),
            ["backend"] = start["backend"]!.DeepClone(),
            ["gpu"] = new JsonObject { ["ids"] = new JsonArray(), ["memory_fraction"] = start["gpu_memory_fraction"]!.DeepClone() },
        },
        ["node_id"] = start["node_id"]!.DeepClone(),
        ["port"] = 8101,
        ["owner"] = "me",
    };

    private static IEnumerable<(string Name, JsonObject Value)> Starts(NodeRegistry nodes)
    {
        var linked = nodes.All.OrderBy(node => node.Id).ToArray();
        var simulates = linked.FirstOrDefault(node => node.LastReport?.Runtimes.Contains("process") == true);
        var runs = linked.FirstOrDefault(node => node.LastReport is { } report && ContainerRuntimes.AreIn(report.Runtimes));
        if (runs is not null || simulates is null)
            yield return ("vllm", Start(runs?.Id ?? 1, "Qwen/Qwen3-0.6B", "vllm"));
        if (simulates is not null)
            yield return ("simulator", Start(simulates.Id, "demo/small-chat", "simulator"));
    }

    private static JsonObject Start(int node, string model, string backend) => new()
    {
        ["node_id"] = node,
        ["model_name"] = model,
        ["port"] = 8100,
        ["gpu_memory_fraction"] = 0.4,
        ["owner"] = "me",
        ["backend"] = backend,
    };

    private static void Set(OpenApiDocument document, string path, IEnumerable<(string Name, JsonObject Value)> examples, HttpMethod? method = null) =>
        document.Paths[path].Operations![method ?? HttpMethod.Post].RequestBody!.Content!["application/json"].Examples =
            examples.ToDictionary(example => example.Name, IOpenApiExample (example) => new OpenApiExample { Value = example.Value });
}
