using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using ModelHost.TestKit;
using ModelHost.Tests.Deployments;

namespace ModelHost.Tests.ApiKeys;

/// <summary>API keys as a client makes and uses them.</summary>
internal static class KeyClient
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Sends a request to <c>/api/api-keys</c>.</summary>
    /// <param name="client">The client.</param>
    /// <param name="method">The method.</param>
    /// <param name="path">Below the resource.</param>
    /// <param name="body">JSON; null: none.</param>
    /// <param name="credential">Its bearer token; null: none.</param>
    public static async Task<HttpResponseMessage> KeysAsync(this HttpClient client, string method, string path = "", string? body = null, string? credential = null)
    {
        using var request = new HttpRequestMessage(new HttpMethod(method), "/api/api-keys" + path);
        if (body is not null)
            request.Content = new StringContent(body, System.Text.Encoding.UTF8, "application/json");
        if (credential is not null)
            request.Headers.TryAddWithoutValidation("Authorization", $"Bearer {credential}").ShouldBeTrue();
        return await client.SendAsync(request, Ct);
    }

    /// <summary>Makes a key that has to be made.</summary>
    /// <returns>The key, and the answer's body.</returns>
    public static async Task<(string Key, int Id, JsonElement Body)> MakeKeyAsync(this HttpClient client, string body = """{"label": "tests"}""", string? credential = null)
    {
        using var answer = await client.KeysAsync("POST", "", body, credential);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK, text);
        var made = JsonDocument.Parse(text).RootElement;
        return (made.Text("key")!, made.Id(), made);
    }

    /// <summary>Changes a key that has to be changed.</summary>
    public static async Task<JsonElement> PatchKeyAsync(this HttpClient client, int id, string body)
    {
        using var answer = await client.KeysAsync("PATCH", $"/{id}", body);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK, text);
        return JsonDocument.Parse(text).RootElement;
    }

    /// <summary>Sends a request with headers as they are.</summary>
    public static async Task<HttpResponseMessage> AskAsync(this HttpClient client, string path, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        foreach (var (name, value) in headers)
            request.Headers.TryAddWithoutValidation(name, value).ShouldBeTrue();
        return await client.SendAsync(request, Ct);
    }

    /// <summary>The status that a path has for a key; null: for none.</summary>
    public static async Task<HttpStatusCode> StatusAsync(this HttpClient client, string path, string? key)
    {
        using var answer = await client.AskAsync(path, key is null ? [] : [("Authorization", $"Bearer {key}")]);
        return answer.StatusCode;
    }

    /// <summary>Asks a model for a chat with a key.</summary>
    public static async Task<HttpResponseMessage> ChatAsync(this HttpClient client, string model, string key)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(Api.Chat(model)), Headers = { Authorization = new("Bearer", key) } };
        return await client.SendAsync(request, Ct);
    }

    /// <summary>Stores a deployment that nothing is started for.</summary>
    public static async Task<int> RecordAsync(this HttpClient client, int node, int port, string served) =>
        (await client.PostedAsync("", Api.StartRequest(node, port, change: request => request["engine_args"] = new JsonObject { ["served_model_name"] = served }))).Id();
}
