using ModelHost.Core.Backends;
using ModelHost.Core.Deployments;
using ModelHost.Core.Engines;
using ModelHost.Protocol;

namespace ModelHost.Agent.Engines;

/// <summary>How one engine is spoken to. Its calls end with their own deadlines, and an engine that does not answer is no failure of theirs.</summary>
internal interface IEngineProtocol
{
    /// <summary>Whether the engine answers now.</summary>
    Task<bool> IsReadyAsync(CancellationToken cancellationToken);

    /// <summary>Has the engine load its model, where that is another step than its start.</summary>
    /// <returns>Why it could not; null: it has it.</returns>
    /// <exception cref="EngineSilentException">It went away meanwhile: it is to be waited for again.</exception>
    Task<EngineFailure?> LoadAsync(LaunchSpec spec, CancellationToken cancellationToken);

    /// <summary>Asks for the engine's figures.</summary>
    /// <returns>Shows them in a report; null: it did not tell.</returns>
    Task<Action<Engine>?> ReadAsync(CancellationToken cancellationToken);

    /// <summary>Has the engine let its model go before its end.</summary>
    Task FreeAsync(CancellationToken cancellationToken);
}

/// <summary>An engine went away while it was asked.</summary>
internal sealed class EngineSilentException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>The protocols of recipes; each has its connections in common for all engines.</summary>
internal sealed class EngineProtocols(NodeOptions options, string modelsFolder, TimeProvider time) : IDisposable
{
    private readonly HttpClient _http = OpenAiProtocol.Client();
    private readonly HttpMessageInvoker _grpc = BackendProtocol.Connections();

    /// <summary>How an engine is spoken to.</summary>
    /// <param name="recipe">Of its backend.</param>
    /// <param name="url">Where it listens.</param>
    /// <param name="key">The key of its run.</param>
    public IEngineProtocol Of(BackendRecipe recipe, Uri url, string key) => recipe.Protocol == BackendCatalogue.Grpc
        ? new BackendProtocol(_grpc, recipe, url, key, new Backends.ModelLoad(options, modelsFolder), options.BackendLoadTimeout, time)
        : new OpenAiProtocol(_http, recipe, url, key, time);

    public void Dispose()
    {
        _http.Dispose();
        _grpc.Dispose();
    }
}
