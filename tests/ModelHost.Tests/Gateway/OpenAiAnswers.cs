using System.Net;
using System.Text.Json;

namespace ModelHost.Tests.Gateway;

internal static class OpenAiAnswers
{
    /// <summary>Checks that an answer is an error in OpenAI's shape, whole.</summary>
    public static async Task<string> ShouldBeOpenAiErrorAsync(this HttpResponseMessage answer, HttpStatusCode status, string code, string? param = null)
    {
        var text = await answer.Content.ReadAsStringAsync();
        answer.StatusCode.ShouldBe(status, text);
        answer.Content.Headers.ContentType!.MediaType.ShouldBe("application/json");
        var root = JsonDocument.Parse(text).RootElement;
        root.EnumerateObject().Select(p => p.Name).ShouldBe(["error"]);
        var error = root.GetProperty("error");
        error.EnumerateObject().Select(p => p.Name).ShouldBe(["message", "type", "param", "code"], ignoreOrder: true);
        error.GetProperty("code").GetString().ShouldBe(code, text);
        error.GetProperty("param").GetString().ShouldBe(param, text);
        error.GetProperty("type").GetString().ShouldBe((int)status >= 500 ? "upstream_error" : "invalid_request_error", text);
        error.GetProperty("message").GetString().ShouldNotBeNullOrWhiteSpace();
        text.ShouldNotContain("System.");
        text.ShouldNotContain("ModelHost.");
        return text;
    }
}
