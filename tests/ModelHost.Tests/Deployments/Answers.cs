using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace ModelHost.Tests.Deployments;

/// <summary>Requests to the API, and what its answers have to be.</summary>
internal static class Answers
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Posts JSON.</summary>
    /// <param name="client">The client.</param>
    /// <param name="path">Below <c>/api/deployments</c>.</param>
    /// <param name="body">The body.</param>
    /// <param name="key">Its idempotency key; null: none.</param>
    /// <param name="credential">Its bearer token; null: none.</param>
    public static async Task<HttpResponseMessage> PostAsync(this HttpClient client, string path, JsonObject body, string? key = null, string? credential = null)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/api/deployments" + path) { Content = JsonContent.Create(body) };
        if (key is not null)
            request.Headers.TryAddWithoutValidation("Idempotency-Key", key).ShouldBeTrue();
        if (credential is not null)
            request.Headers.Authorization = new("Bearer", credential);
        return await client.SendAsync(request, Ct);
    }

    /// <summary>Posts JSON that has to be taken.</summary>
    /// <returns>The answer's body.</returns>
    public static async Task<JsonElement> PostedAsync(this HttpClient client, string path, JsonObject body, string? key = null)
    {
        using var answer = await client.PostAsync(path, body, key);
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.StatusCode.ShouldBe(HttpStatusCode.OK, text);
        return JsonDocument.Parse(text).RootElement;
    }

    /// <summary>Fails unless this is a refusal with this status and code, and names this field.</summary>
    /// <returns>Its detail.</returns>
    public static async Task<string> ShouldBeRefusedAsync(this Task<HttpResponseMessage> sent, HttpStatusCode status, string code, string? field = null)
    {
        using var answer = await sent;
        var text = await answer.Content.ReadAsStringAsync(Ct);
        answer.StatusCode.ShouldBe(status, text);
        answer.Content.Headers.ContentType!.MediaType.ShouldBe("application/problem+json");
        foreach (var word in (string[])["System.", "ModelHost.", "DeploymentStart", "Exception", "Nullable"])
            text.ShouldNotContain(word, Case.Sensitive);
        var problem = JsonDocument.Parse(text).RootElement;
        problem.GetProperty("code").GetString().ShouldBe(code, text);
        if (field is not null)
            problem.GetProperty("errors").EnumerateObject().Select(error => error.Name).ShouldBe([field], text);
        return problem.GetProperty("detail").GetString()!;
    }

    public static int Id(this JsonElement deployment) => deployment.GetProperty("id").GetInt32();

    public static string? Text(this JsonElement element, string name) => element.GetProperty(name).GetString();
}
