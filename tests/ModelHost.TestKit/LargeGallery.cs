using System.Text;

namespace ModelHost.TestKit;

/// <summary>An index of models as LocalAI's is: with anchors, merge keys, long descriptions, and a file for each.</summary>
public static class LargeGallery
{
    /// <summary>Writes one.</summary>
    /// <param name="entries">How many; the largest known has some 1,700.</param>
    public static string Text(int entries)
    {
        var text = new StringBuilder("- &base\n  name: base\n  url: \"github:mudler/LocalAI/gallery/virtual.yaml@master\"\n  license: apache-2.0\n  tags: [llm, gguf, gpu, cpu]\n");
        for (var i = 1; i < entries; i++)
        {
            text.Append($"- !!merge <<: *base\n  name: \"model-{i}\"\n  icon: https://cdn.example.org/avatars/{i}.png\n  urls:\n    - https://huggingface.co/owner/model-{i}\n    - https://huggingface.co/owner/model-{i}-GGUF\n");
            text.Append("  description: |\n");
            for (var line = 0; line < 9; line++)
                text.Append($"    Line {line} of what is told of model {i}: what it was trained on, and what it is good for, at length.\n");
            text.Append($"  overrides:\n    parameters:\n      model: model-{i}.Q4_K_M.gguf\n  files:\n    - filename: model-{i}.Q4_K_M.gguf\n      sha256: {i:x64}\n      uri: huggingface://owner/model-{i}-GGUF/model-{i}.Q4_K_M.gguf\n");
        }
        return text.ToString();
    }
}
