using System.Text.Json.Nodes;

namespace ModelHost.Tests.Simulator;

public sealed class LoraTests
{
    private const string Load = "/v1/load_lora_adapter";

    private const string Unload = "/v1/unload_lora_adapter";

    private const string Sql = """{"lora_name":"sql","lora_path":"org/sql"}""";

    [Fact]
    public async Task Without_the_variable_the_routes_are_not_there()
    {
        await using var simulator = await RunningSimulator.StartAsync("m", "--enable-lora");

        (await simulator.SendAsync(Load, Sql)).Status.ShouldBe(404);
    }

    [Fact]
    public async Task An_adapter_is_loaded_answers_and_goes()
    {
        await using var simulator = await StartAsync([]);

        (await CallAsync(simulator, Load, Sql)).ShouldBe((200, "text/plain", "Success: LoRA adapter 'sql' added successfully."));
        var cards = JsonNode.Parse(await simulator.Http.GetStringAsync("/v1/models", TestContext.Current.CancellationToken))!["data"]!;
        var answer = await simulator.SendAsync("/v1/chat/completions", """{"model":"sql","messages":[]}""");
        (await CallAsync(simulator, Unload, """{"lora_name":"sql"}""")).ShouldBe((200, "text/plain", "Success: LoRA adapter 'sql' removed successfully."));

        ((string?)cards[1]!["id"], (string?)cards[1]!["root"], (string?)cards[1]!["parent"], cards[1]!["max_model_len"]).ShouldBe(("sql", "org/sql", "m", null));
        ((string?)answer.Body["model"]).ShouldBe("sql");
        simulator.Output.ShouldContain("Loaded new LoRA adapter: name 'sql'");
        simulator.Output.ShouldContain("Removed LoRA adapter: name 'sql'");
        (await simulator.SendAsync("/v1/chat/completions", """{"model":"sql","messages":[]}""")).Status.ShouldBe(404);
    }

    [Theory]
    [InlineData(Load, """{"lora_name":"x"}""", 400, "InvalidUserInput", "must be provided")]
    [InlineData(Load, Sql, 400, "InvalidUserInput", "has already been loaded")]
    [InlineData(Load, """{"lora_name":"x","lora_path":"/nowhere/x"}""", 404, "NotFoundError", "No adapter found for /nowhere/x")]
    [InlineData(Unload, "{}", 400, "InvalidUserInput", "needs to be provided")]
    [InlineData(Unload, """{"lora_name":"x"}""", 404, "NotFoundError", "The lora adapter 'x' cannot be found.")]
    public async Task Refusals_have_their_type(string path, string body, int status, string type, string message)
    {
        await using var simulator = await StartAsync([]);
        await CallAsync(simulator, Load, Sql);

        var (answered, json) = await simulator.SendAsync(path, body);

        answered.ShouldBe(status);
        ((string?)json["error"]!["type"]).ShouldBe(type);
        json["error"]!["param"].ShouldBeNull();
        ((string?)json["error"]!["message"])!.ShouldContain(message);
    }

    [Fact]
    public async Task In_place_an_adapter_is_loaded_again()
    {
        await using var simulator = await StartAsync([]);
        await CallAsync(simulator, Load, Sql);

        (await CallAsync(simulator, Load, Sql.Replace("\"}", "\",\"load_inplace\":true}", StringComparison.Ordinal))).Status.ShouldBe(200);
    }

    [Fact]
    public async Task An_engine_that_refuses_answers_500()
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_LORA"] = "refuse" });

        var (status, body) = await simulator.SendAsync(Load, Sql);

        status.ShouldBe(500);
        ((string?)body["error"]!["type"]).ShouldBe("InternalServerError");
    }

    [Fact]
    public async Task Combinations_of_adapters_stay_as_series()
    {
        await using var simulator = await StartAsync(new() { ["VLLM_SIM_TTFT_MS"] = "50" });
        await CallAsync(simulator, Load, Sql);

        await simulator.SendAsync("/v1/chat/completions", """{"model":"sql","messages":[]}""");

        foreach (var running in new[] { "sql", "" })
            (await simulator.MetricAsync($"vllm:lora_requests_info{{max_lora=\"1\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"\"}}"))
                .ShouldBeGreaterThan(1.7e9);
    }

    private static Task<RunningSimulator> StartAsync(Dictionary<string, string> knobs)
    {
        knobs["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1";
        return RunningSimulator.StartWithAsync(knobs, "m", "--enable-lora");
    }

    private static async Task<(int Status, string? Type, string Body)> CallAsync(RunningSimulator simulator, string path, string body)
    {
        using var response = await simulator.PostAsync(path, body);
        return ((int)response.StatusCode, response.Content.Headers.ContentType?.MediaType, await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
    }
}
