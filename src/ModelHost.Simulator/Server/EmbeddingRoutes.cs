using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary><c>/v1/embeddings</c>: unit vectors that depend on the model and the text alone.</summary>
internal sealed class EmbeddingRoutes(RequestParser parser, PoolingAnswers answers, ModelTasks tasks)
{
    private const int DefaultDimensions = 1024;

    public async Task EmbedAsync(HttpContext context)
    {
        var (model, texts, base64, dimensions) = await RequestBody.ReadAsync(context, body =>
        {
            var inputs = PoolingAnswers.Inputs(body);
            if (!tasks.Embeds)
                throw ApiException.Unable("Embeddings");
            return (parser.Model(body).Name, inputs, PoolingAnswers.IsBase64(body), PoolingAnswers.Dimensions(body, DefaultDimensions));
        });
        await answers.ListAsync(context, "embd-", model, texts, (json, index) =>
        {
            json.WriteString("object"u8, "embedding"u8);
            PoolingAnswers.Write(json, "embedding"u8, answers.Vector(texts[index].Text, dimensions), base64);
        });
    }
}
