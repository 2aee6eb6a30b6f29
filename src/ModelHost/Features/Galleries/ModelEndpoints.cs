using System.ComponentModel;
using ModelHost.Core;
using ModelHost.Core.Galleries;

namespace ModelHost.Features.Galleries;

/// <summary>The routes of models.</summary>
internal static class ModelEndpoints
{
    private const string WaitText = "True: answer when the job has ended, with its status as `job`. Leaving cancels nothing.";

    /// <summary>Maps them.</summary>
    public static void MapModels(this RouteGroupBuilder group)
    {
        group.MapGet("", ListAsync).WithName("ListInstalledModels").WithSummary("List models that are served or installed, and files in the models folder.")
            .Produces<ModelList>().ProducesLocalAiErrors();
        group.MapGet("/available", AvailableAsync).WithName("ListAvailableModels").WithSummary("List the models of all galleries that can be read.")
            .Produces<AvailableModel[]>().ProducesLocalAiErrors();
        group.MapPost("/apply", ApplyAsync).WithName("ApplyModel").WithSummary("Install a model and record its deployment.").DisableValidation()
            .WithDescription("Answers with a job at once. What cannot be found or downloaded shows in the job, and leaves what was there as it was.")
            .Produces<ModelJob>().ProducesLocalAiErrors();
        group.MapPost("/delete/{name}", DeleteAsync).WithName("DeleteModel").WithSummary("Delete an installed model, its deployments and its files.")
            .Produces<ModelJob>().ProducesLocalAiErrors();
    }

    private static async Task<IResult> ListAsync(
        [Description("Regular expression that the names are to match.")] string? filter,
        [Description("True, the default: without files that an installed model names.")] string? excludeConfigured, ModelService models, CancellationToken cancellationToken) =>
        (await models.ListAsync(filter, excludeConfigured is null or "" or "true" ? LooseFilePolicy.SkipIfConfigured : LooseFilePolicy.AlwaysInclude, cancellationToken))
            .Match(TypedResults.Ok, GalleryEndpoints.ToLocalAi);

    private static async Task<IResult> AvailableAsync(ModelService models, CancellationToken cancellationToken) =>
        TypedResults.Ok(await models.AvailableAsync(cancellationToken));

    private static async Task<IResult> ApplyAsync(
        ModelApply request, HttpRequest http, [Description(WaitText)] bool? wait, ModelService models, IHostApplicationLifetime lifetime, TimeProvider time, CancellationToken cancellationToken) =>
        await AnswerAsync(await models.ApplyAsync(request, cancellationToken), http, wait, lifetime, time, cancellationToken);

    private static async Task<IResult> DeleteAsync(
        string name, HttpRequest http, [Description(WaitText)] bool? wait, ModelService models, IHostApplicationLifetime lifetime, TimeProvider time, CancellationToken cancellationToken) =>
        await AnswerAsync(await models.DeleteAsync(name, cancellationToken), http, wait, lifetime, time, cancellationToken);

    private static async Task<IResult> AnswerAsync(
        Result<JobEntry> asked, HttpRequest http, bool? wait, IHostApplicationLifetime lifetime, TimeProvider time, CancellationToken cancellationToken)
    {
        if (!asked.TryGet(out var job, out var failure))
            return failure.ToLocalAi();
        using var waiting = CancellationTokenSource.CreateLinkedTokenSource(lifetime.ApplicationStopping, cancellationToken);
        return TypedResults.Ok(new ModelJob(job.Uid, http.StatusUrl("models", job), await job.EndedAsync(wait, time, waiting.Token)));
    }
}
