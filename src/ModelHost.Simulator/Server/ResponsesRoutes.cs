using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary><c>/v1/responses</c>. Responses are kept, and run in the background, only with <c>VLLM_ENABLE_RESPONSES_API_STORE=1</c>.</summary>
internal sealed class ResponsesRoutes(ServerOptions options, RequestParser parser, Engine engine, AnswerWriter writer, TimeProvider time)
{
    private readonly bool _stores = options.VllmEnvironment.Any(pair => pair is { Key: "VLLM_ENABLE_RESPONSES_API_STORE", Value: "1" });
    private readonly ResponseStore _store = new();

    public async Task CreateAsync(HttpContext context)
    {
        var request = await RequestBody.ReadAsync(context, body => ResponsesRequest.Read(body, parser, options, _stores, History));
        request = request with { Generation = request.Generation.ToRankOf(context) };
        var head = new AnswerHead(request.Id, time.GetUtcNow().ToUnixTimeSeconds(), null, PromptTokensDetails: true);
        if (request.Background)
        {
            await BeginAsync(context, request, head);
            return;
        }
        var format = new ResponsesFormat(request, request.Store ? (json, text) => Keep(request, json, text) : null);
        using var generation = engine.Start(request.Generation, context.RequestAborted, request.Id);
        await writer.AnswerAsync(context, format, head, generation);
    }

    public async Task GetAsync(HttpContext context)
    {
        var query = context.Request.Query;
        var after = query["starting_after"].LastOrDefault() is not { } text ? -1
            : int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var parsed) ? parsed
            : throw ApiException.Shape("query.starting_after", "int_parsing", "Input should be a valid integer, unable to parse string as an integer");
        var response = Stored(context);
        if (query["stream"].LastOrDefault()?.ToLowerInvariant() is not ("true" or "1"))
            await Answers.BytesAsync(context, response.Json, "application/json");
        else if (response.Events is { } events)
            await events.SendAsync(context, Math.Max(0, after + 1));
        else
            throw ApiException.Bad($"Unknown response_id: {response.Id}", "response_id");
    }

    public async Task CancelAsync(HttpContext context)
    {
        var response = Stored(context);
        var cancelled = JsonNode.Parse(response.Json)!;
        cancelled["status"] = "cancelled";
        if (!response.TryCancel(JsonSerializer.SerializeToUtf8Bytes(cancelled)))
            throw ResponsesRequest.Invalid(400, "Cannot cancel a synchronous response.", "response_id");
        await Answers.BytesAsync(context, response.Json, "application/json");
    }

    /// <summary>Answers at once, and lets the response come to its end whether or not anybody waits.</summary>
    private async Task BeginAsync(HttpContext context, ResponsesRequest request, AnswerHead head)
    {
        StoredResponse? response = null;
        var format = new ResponsesFormat(request, (json, text) => response!.Become(StatusOf(json), json, Messages(request, text)));
        // never disposed of: a client may cancel at any time, and without a timer there is nothing to give back
        var cancel = new CancellationTokenSource();
        var generation = engine.Start(request.Generation, cancel.Token, request.Id);
        try
        {
            response = new(request.Id, format.Empty(head, generation, "queued"), "queued", cancel)
            {
                Events = request.Generation.Stream ? new RecordedEvents(cancel.Token) : null,
            };
            if (!_store.TryAdd(response))
                throw ApiException.Busy();
        }
        catch
        {
            generation.Dispose();
            throw;
        }
        var queued = response.Json;
        response.Run(RunAsync(response, format, head, generation, cancel.Token));
        if (response.Events is { } events)
            await events.SendAsync(context, 0);
        else
            await Answers.BytesAsync(context, queued, "application/json");
    }

    private async Task RunAsync(StoredResponse response, ResponsesFormat format, AnswerHead head, Generation generation, CancellationToken cancelled)
    {
        // the answer to the request does not wait for the engine
        await Task.Yield();
        using (generation)
            try
            {
                if (response.Events is { } events)
                    await writer.StreamAsync(generation, format, head, events);
                else if (await writer.RunAsync(generation, new RecordedEvents(cancelled)))
                    format.Finished(head, generation);
            }
            catch (Exception e) when (e is ApiException or OperationCanceledException)
            {
                // the state below tells the client
            }
            finally
            {
                if (response.Status == "queued")
                    response.Become("failed", format.Empty(head, generation, "failed"), null);
                response.Events?.End();
                _store.Trim();
            }
    }

    private void Keep(ResponsesRequest request, byte[] json, string text)
    {
        var response = new StoredResponse(request.Id, [], "", null);
        response.Become(StatusOf(json), json, Messages(request, text));
        _store.TryAdd(response);
    }

    /// <summary>The messages that end with an earlier response.</summary>
    private JsonElement? History(string id) =>
        _store.Find(id) is { } response ? JsonSerializer.Deserialize<JsonElement>(response.Messages ?? "[]"u8.ToArray()) : null;

    /// <summary>The prompt and what was said to it.</summary>
    private static byte[] Messages(ResponsesRequest request, string text)
    {
        var messages = JsonArray.Create(request.Messages)!;
        if (text.Length > 0)
            messages.Add((JsonNode)new JsonObject { ["role"] = "assistant", ["content"] = text });
        return JsonSerializer.SerializeToUtf8Bytes(messages);
    }

    private static string StatusOf(byte[] json)
    {
        using var document = JsonDocument.Parse(json);
        return document.RootElement.GetProperty("status").GetString()!;
    }

    private StoredResponse Stored(HttpContext context)
    {
        var id = (string)context.Request.RouteValues["response_id"]!;
        return _store.Find(id) ?? throw ResponsesRequest.NotFound(id);
    }
}
