using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace ModelHost.TestKit;

/// <summary>The published API as a client sees it: JSON in, JSON out.</summary>
public static class Api
{
    /// <summary>A request to start a model.</summary>
    /// <param name="nodeId">Where.</param>
    /// <param name="port">Its public port.</param>
    /// <param name="model">What to serve.</param>
    /// <param name="backend">What serves it.</param>
    /// <param name="change">Adds and changes fields.</param>
    public static JsonObject StartRequest(int nodeId, int port = 8101, string model = "demo/tiny-chat", string backend = "simulator", Action<JsonObject>? change = null)
    {
        var request = new JsonObject
        {
            ["node_id"] = nodeId,
            ["model_name"] = model,
            ["port"] = port,
            ["gpu_memory_fraction"] = 0.4,
            ["owner"] = "tests",
            ["backend"] = backend,
        };
        change?.Invoke(request);
        return request;
    }

    /// <summary>Waits until the local node answers, its GPUs have been read, and the runtimes named are there.</summary>
    /// <returns>The node's id.</returns>
    public static async Task<int> NodeAsync(this HttpClient client, params string[] runtimes)
    {
        var nodes = await Deadline.UntilAsync(
            () => client.JsonAsync("/api/nodes"),
            answer => answer.GetArrayLength() > 0 && HasTold(answer[0], runtimes));
        return nodes[0].GetProperty("id").GetInt32();
    }

    /// <summary>Whether the GPUs of a node have been read, and the runtimes named are there: before that nothing can be started there.</summary>
    public static bool HasTold(JsonElement node, params string[] runtimes) => node.GetProperty("gpu_error").ValueKind == JsonValueKind.Null
        && node.GetProperty("available_runtimes") is { ValueKind: JsonValueKind.Array } available
        && runtimes.All(runtime => available.EnumerateArray().Any(a => a.GetString() == runtime));

    /// <summary>Starts a model and fails the test if that is refused.</summary>
    /// <returns>The deployment's id.</returns>
    public static async Task<int> StartModelAsync(this HttpClient client, JsonObject request)
    {
        using var answer = await client.PostAsJsonAsync("/api/deployments/start", request);
        var body = await answer.Content.ReadFromJsonAsync<JsonElement>();
        return answer.IsSuccessStatusCode ? body.GetProperty("id").GetInt32() : throw new InvalidOperationException($"{(int)answer.StatusCode}: {body}");
    }

    /// <summary>Waits until a deployment has a status.</summary>
    public static Task<JsonElement> StatusAsync(this HttpClient client, int id, string status, double seconds = 180) =>
        Deadline.UntilAsync(() => client.JsonAsync($"/api/deployments/{id}"), d => d.GetProperty("status").GetString() == status, seconds, $"deployment {id} to be {status}");

    /// <summary>Stops a deployment and waits for its end.</summary>
    public static async Task StopModelAsync(this HttpClient client, int id)
    {
        using var answer = await client.PostAsync(new Uri($"/api/deployments/stop/{id}", UriKind.Relative), null);
        answer.EnsureSuccessStatusCode();
        await client.StatusAsync(id, "stopped");
    }

    /// <summary>The JSON at a path.</summary>
    public static Task<JsonElement> JsonAsync(this HttpClient client, string path) => client.GetFromJsonAsync<JsonElement>(path);

    /// <summary>A chat request.</summary>
    public static JsonObject Chat(string model, bool stream = false, int? maxTokens = null)
    {
        var request = new JsonObject
        {
            ["model"] = model,
            ["messages"] = new JsonArray(new JsonObject { ["role"] = "user", ["content"] = "Say something." }),
            ["stream"] = stream,
        };
        if (maxTokens is { } tokens)
            request["max_tokens"] = tokens;
        return request;
    }
}
