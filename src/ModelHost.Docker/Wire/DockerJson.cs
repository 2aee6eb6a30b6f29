using System.Text.Json.Serialization;

namespace ModelHost.Docker.Wire;

[JsonSourceGenerationOptions(DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull, RespectNullableAnnotations = true)]
[JsonSerializable(typeof(CreateContainerRequest))]
[JsonSerializable(typeof(AuthConfig))]
[JsonSerializable(typeof(LibpodCreateRequest))]
[JsonSerializable(typeof(CreateContainerAnswer))]
[JsonSerializable(typeof(WaitAnswer))]
[JsonSerializable(typeof(ContainerAnswer))]
[JsonSerializable(typeof(IReadOnlyList<ContainerListAnswer>))]
[JsonSerializable(typeof(IReadOnlyList<ImageListAnswer>))]
[JsonSerializable(typeof(ImageAnswer))]
[JsonSerializable(typeof(StreamMessage))]
[JsonSerializable(typeof(IReadOnlyList<RemovedAnswer>))]
[JsonSerializable(typeof(PruneAnswer))]
[JsonSerializable(typeof(EventAnswer))]
[JsonSerializable(typeof(StatsAnswer))]
[JsonSerializable(typeof(ErrorAnswer))]
[JsonSerializable(typeof(Dictionary<string, IReadOnlyList<string>>))]
[JsonSerializable(typeof(IReadOnlyDictionary<string, string>))]
internal sealed partial class DockerJson : JsonSerializerContext;
