using Microsoft.AspNetCore.Http;
using ModelHost.Simulator.Options;
using ModelHost.Simulator.Requests;

namespace ModelHost.Simulator.Server;

/// <summary>Loads and unloads adapters at run time; there only with <c>VLLM_ALLOW_RUNTIME_LORA_UPDATING</c>.</summary>
internal sealed class LoraRoutes(ServerOptions options, Adapters adapters, ServerLog log)
{
    public async Task LoadAsync(HttpContext context)
    {
        var (name, path, replace) = await RequestBody.ReadAsync(context, body => (body.Text("lora_name"), body.Text("lora_path"), body.Flag("load_inplace")));
        if (string.IsNullOrEmpty(name) || string.IsNullOrEmpty(path))
            throw Invalid("Both 'lora_name' and 'lora_path' must be provided.");
        if (adapters.Has(name) && !replace)
            throw AlreadyLoaded(name);
        if (options.Knobs.Lora == LoraLoading.Refuse || !adapters.Enabled)
            throw ApiException.Internal();
        // a repository id is no path on this machine, and is believed
        if (options.Knobs.Lora == LoraLoading.Check && Path.IsPathRooted(path) && !Directory.Exists(path))
            throw new ApiException(404, "NotFoundError", $"Loading lora {name} failed: No adapter found for {path}");
        if (!adapters.TryAdd(new(name, path, null), replace))
            throw AlreadyLoaded(name);
        log.Api("serving_models.py:176", $"Loaded new LoRA adapter: name '{name}', path '{path}'");
        await Answers.TextAsync(context, $"Success: LoRA adapter '{name}' added successfully.", "text/plain; charset=utf-8");
    }

    public async Task UnloadAsync(HttpContext context)
    {
        var name = await RequestBody.ReadAsync(context, body => body.Text("lora_name"));
        if (string.IsNullOrEmpty(name))
            throw Invalid("'lora_name' needs to be provided to unload a LoRA adapter.");
        if (!adapters.TryRemove(name))
            throw new ApiException(404, "NotFoundError", $"The lora adapter '{name}' cannot be found.");
        log.Api("serving_models.py:204", $"Removed LoRA adapter: name '{name}'");
        await Answers.TextAsync(context, $"Success: LoRA adapter '{name}' removed successfully.", "text/plain; charset=utf-8");
    }

    private static ApiException Invalid(string message) => new(400, "InvalidUserInput", message);

    private static ApiException AlreadyLoaded(string name) => Invalid(
        $"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.");
}
