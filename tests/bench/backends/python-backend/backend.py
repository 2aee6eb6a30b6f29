"""backend.py --addr HOST:PORT. Its messages are put together from the table below, at run time.

Prompts that are words of command play a backend in trouble: "die", "hang", "fail CODE TEXT", "long BYTES", "options".
"""
import concurrent.futures
import json
import math
import os
import sys
import threading
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

# name: "number field type" ...; "*" repeated, "{}" a map from string
MESSAGES = {
    "HealthMessage": "",
    "MetricsRequest": "",
    "Result": "1 message string, 2 success bool",
    # 90 is of a release to come
    "Reply": "1 message bytes, 2 tokens int32, 3 prompt_tokens int32, 4 timing_prompt_processing double, 5 timing_token_generation double, "
             "6 audio bytes, 7 logprobs bytes, 8 chat_deltas *ChatDelta, 90 future string",
    "ChatDelta": "1 content string, 2 reasoning_content string, 3 tool_calls *ToolCallDelta",
    "ToolCallDelta": "1 index int32, 2 id string, 3 name string, 4 arguments string",
    "Message": "1 role string, 2 content string, 3 name string, 4 tool_call_id string, 5 reasoning_content string, 6 tool_calls string",
    "PredictOptions": "1 Prompt string, 2 Seed int32, 4 Tokens int32, 5 TopK int32, 9 Temperature float, 13 StopPrompts *string, 14 IgnoreEOS bool, "
                      "17 FrequencyPenalty float, 18 PresencePenalty float, 23 LogitBias string, 29 Grammar string, 32 TopP float, "
                      "35 EmbeddingTokens *int32, 36 Embeddings string, 42 Images *string, 43 UseTokenizerTemplate bool, 44 Messages *Message, "
                      "45 Videos *string, 46 Audios *string, 47 CorrelationId string, 48 Tools string, 49 ToolChoice string, 50 Logprobs int32, "
                      "51 TopLogprobs int32, 52 Metadata {}string, 53 MinP float, 54 ModelIdentity string",
    "ModelOptions": "1 Model string, 2 ContextSize int32, 3 Seed int32, 4 NBatch int32, 5 F16Memory bool, 6 MLock bool, 7 MMap bool, 9 LowVRAM bool, "
                    "10 Embeddings bool, 12 NGPULayers int32, 13 MainGPU string, 14 TensorSplit string, 15 Threads int32, 17 RopeFreqBase float, "
                    "21 ModelFile string, 28 CUDA bool, 34 Tokenizer string, 40 Quantization string, 41 MMProj string, 42 LoraScale float, 49 Type string, "
                    "50 GPUMemoryUtilization float, 51 TrustRemoteCode bool, 54 MaxModelLen int32, 55 TensorParallelSize int32, 56 FlashAttention string, "
                    "57 NoKVOffload bool, 59 ModelPath string, 60 LoraAdapters *string, 61 LoraScales *float, 62 Options *string, 63 CacheTypeKey string, "
                    "64 CacheTypeValue string, 67 DType string, 71 Reranking bool, 72 Overrides *string, 73 EngineArgs string",
    "StatusResponse": "1 state State, 2 memory MemoryUsageData",
    "MemoryUsageData": "1 total uint64, 2 breakdown {}uint64",
    "MetricsResponse": "1 slot_id int32, 2 prompt_json_for_slot string, 3 tokens_per_second float, 4 tokens_generated int32, 5 prompt_tokens_processed int32",
    "EmbeddingResult": "1 embeddings *float, 2 tokens int32, 3 dim int32, 4 prompt_tokens int32",
    "TokenizationResponse": "1 length int32, 2 tokens *int32",
    "DetokenizeRequest": "1 tokens *int32",
    "DetokenizeResponse": "1 content string",
    "RerankRequest": "1 query string, 2 documents *string, 3 top_n int32, 4 ModelIdentity string",
    "Usage": "1 total_tokens int32, 2 prompt_tokens int32",
    "DocumentResult": "1 index int32, 2 text string, 3 relevance_score float",
    "RerankResult": "1 usage Usage, 2 results *DocumentResult",
    "StoresKey": "1 Floats *float",
    "StoresValue": "1 Bytes bytes",
    "StoresSetOptions": "1 Keys *StoresKey, 2 Values *StoresValue",
    "StoresDeleteOptions": "1 Keys *StoresKey",
    "StoresGetOptions": "1 Keys *StoresKey",
    "StoresGetResult": "1 Keys *StoresKey, 2 Values *StoresValue",
    "StoresFindOptions": "1 Key StoresKey, 2 TopK int32",
    "StoresFindResult": "1 Keys *StoresKey, 2 Values *StoresValue, 3 Similarities *float",
    "TTSRequest": "1 text string, 2 model string, 3 dst string, 4 voice string, 5 language string, 6 instructions string, 7 params {}string, 8 ModelIdentity string",
    "TranscriptRequest": "2 dst string, 3 language string, 4 threads uint32, 5 translate bool, 6 diarize bool, 7 prompt string, 11 ModelIdentity string",
    "TranscriptWord": "1 start int64, 2 end int64, 3 text string",
    "TranscriptSegment": "1 id int32, 2 start int64, 3 end int64, 4 text string, 5 tokens *int32, 6 speaker string, 7 words *TranscriptWord",
    "TranscriptResult": "1 segments *TranscriptSegment, 2 text string, 3 language string, 4 duration float, 5 eou bool",
}
FIELD = descriptor_pb2.FieldDescriptorProto


def build():
    file = descriptor_pb2.FileDescriptorProto(name="test-backend.proto", package="backend", syntax="proto3")
    state = file.enum_type.add(name="State")
    for name, number in (("UNINITIALIZED", 0), ("BUSY", 1), ("READY", 2), ("ERROR", -1)):
        state.value.add(name=name, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind in (text.split() for text in fields.split(",") if text):
            label = FIELD.LABEL_REPEATED if kind[0] in "*{" else FIELD.LABEL_OPTIONAL
            if kind.startswith("{}"):
                entry = message.nested_type.add(name=field.capitalize() + "Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)
                entry.field.add(name="value", number=2, type=getattr(FIELD, "TYPE_" + kind[2:].upper()), label=FIELD.LABEL_OPTIONAL)
                message.field.add(name=field, number=int(number), type=FIELD.TYPE_MESSAGE, label=label, type_name=f".backend.{name}.{entry.name}")
                continue
            kind = kind.lstrip("*")
            if kind in MESSAGES or kind == "State":
                message.field.add(name=field, number=int(number), label=label, type_name=".backend." + kind,
                                  type=FIELD.TYPE_ENUM if kind == "State" else FIELD.TYPE_MESSAGE)
            else:
                message.field.add(name=field, number=int(number), label=label, type=getattr(FIELD, "TYPE_" + kind.upper()))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(pool.FindMessageTypeByName("backend." + name)) for name in MESSAGES}


M = build()
TOKEN = os.environ.get("LOCALAI_GRPC_AUTH_TOKEN", "")
STORE = {}
STATE = {"model": None, "generated": 0}


def require_model(context):
    if STATE["model"] is None:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "python-backend: model not loaded")


def check_identity(request, context):
    if request.ModelIdentity and request.ModelIdentity != STATE["model"].Model:
        context.abort(grpc.StatusCode.NOT_FOUND, f"model identity mismatch: {STATE['model'].Model} is loaded")


def obey(prompt, context):
    word, _, rest = prompt.partition(" ")
    if word == "die":
        os._exit(3)
    if word == "hang":
        while context.is_active():
            time.sleep(0.05)
        return M["Reply"]()
    if word == "fail":
        code, _, text = rest.partition(" ")
        context.abort(next(c for c in grpc.StatusCode if c.value[0] == int(code)), text)
    if word == "long":
        return M["Reply"](message=b"x" * int(rest))
    if word == "options":
        return M["Reply"](message=json_format.MessageToJson(STATE["model"], preserving_proto_field_name=True).encode())
    return None


def load_model(request, context):
    if request.Model.startswith("bad"):
        return M["Result"](success=False, message=f"cannot load {request.Model}: no such file")
    if "die:on_load" in request.Options:
        os._exit(7)
    if "raise:on_load" in request.Options:
        raise RuntimeError("the weights are not what they seem")
    if "hang:on_load" in request.Options:
        while context.is_active():
            time.sleep(0.05)
    STATE["model"] = request
    print(f"python-backend loaded {request.Model}")
    return M["Result"](success=True)


def free(request, context):
    model, STATE["model"] = STATE["model"], None
    if model is not None and "mark:free" in model.Options:
        open(os.path.join(model.ModelPath, "freed"), "w").close()
    return M["Result"](success=True)


def prompt_of(request):
    return request.Messages[-1].content if request.UseTokenizerTemplate and request.Messages else request.Prompt


def calls(request):
    """A call of the first tool, in the pieces that a parser of a model's output tells."""
    name = json.loads(request.Tools)[0]["function"]["name"]
    pieces = [M["ToolCallDelta"](index=0, id="call-1", name=name), M["ToolCallDelta"](index=0, arguments='{"city": '), M["ToolCallDelta"](index=0, arguments='"Oslo"}')]
    return [M["ChatDelta"](tool_calls=[piece]) for piece in pieces]


def predict(request, context):
    require_model(context)
    check_identity(request, context)
    if request.Tools and prompt_of(request) == "call":
        return M["Reply"](tokens=3, prompt_tokens=1, chat_deltas=calls(request))
    played = obey(prompt_of(request), context)
    if played is not None:
        return played
    text = "\n".join(f"{m.role}: {m.content}" for m in request.Messages) if request.UseTokenizerTemplate else "echo " + request.Prompt
    STATE["generated"] += len(text.split())
    return M["Reply"](message=text.encode(), tokens=len(text.split()), prompt_tokens=len(request.Prompt.split()), future="of a release to come")


def predict_stream(request, context):
    require_model(context)
    check_identity(request, context)
    count, prompt = 0, prompt_of(request)
    if request.Tools and prompt == "call":
        for delta in calls(request):
            count += 1
            yield M["Reply"](tokens=count, prompt_tokens=1, chat_deltas=[delta])
        return
    if prompt == "forever":
        context.add_callback(lambda: print("python-backend cancelled"))
        while context.is_active():
            count += 1
            yield M["Reply"](message=b"again ", tokens=count)
            time.sleep(0.02)
        return
    for word in prompt.split():
        if word == "fail":
            context.abort(grpc.StatusCode.INTERNAL, "the stream broke")
        count += 1
        yield M["Reply"](message=(word + " ").encode(), tokens=count, prompt_tokens=len(prompt.split()),
                         chat_deltas=[M["ChatDelta"](content=word + " ")])


def embedding(request, context):
    require_model(context)
    return M["EmbeddingResult"](embeddings=[len(request.Embeddings), len(request.EmbeddingTokens), 0.5, -1], dim=4, prompt_tokens=3, tokens=3)


def tokenize(request, context):
    require_model(context)
    return M["TokenizationResponse"](length=len(request.Prompt), tokens=[ord(c) for c in request.Prompt])


def status(request, context):
    model = STATE["model"]
    if model is not None and "hang:status" in model.Options:
        while context.is_active():
            time.sleep(0.05)
    if model is not None and "no:status" in model.Options:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
    busy = model is not None and "busy:status" in model.Options
    error = model is not None and "error:status" in model.Options
    return M["StatusResponse"](state=-1 if error else 1 if busy else 2 if model else 0,
                               memory=M["MemoryUsageData"](total=1073741824, breakdown={"weights": 536870912, "kv_cache": 268435456}))


def tts(request, context):
    require_model(context)
    if not request.text:
        return M["Result"](success=False, message="nothing to say")
    with open(request.dst, "wb") as file:
        file.write(b"RIFF" + (request.text + request.voice).encode())
    return M["Result"](success=True)


def tts_stream(request, context):
    require_model(context)
    yield M["Reply"](message=json.dumps({"sample_rate": 22050}).encode())
    for word in request.text.split():
        yield M["Reply"](audio=word.encode())


def transcribe(request, context):
    require_model(context)
    with open(request.dst, "rb") as file:
        text = f"heard {len(file.read())} bytes"
    return M["TranscriptResult"](text=text, language=request.language or "en", duration=1.5,
                                 segments=[M["TranscriptSegment"](id=0, start=0, end=1500000000, text=text)])


def rerank(request, context):
    require_model(context)
    scored = [M["DocumentResult"](index=i, text=d, relevance_score=sum(w in request.query for w in d.split())) for i, d in enumerate(request.documents)]
    scored.sort(key=lambda one: -one.relevance_score)
    return M["RerankResult"](usage=M["Usage"](total_tokens=9, prompt_tokens=9), results=scored[:request.top_n or None])


def stores_set(request, context):
    if not request.Keys or len(request.Keys) != len(request.Values):
        context.abort(grpc.StatusCode.UNKNOWN, f"len(keys) = {len(request.Keys)}, len(values) = {len(request.Values)}")
    for key, value in zip(request.Keys, request.Values):
        STORE[tuple(key.Floats)] = value.Bytes
    return M["Result"](success=True)


def stores_delete(request, context):
    for key in request.Keys:
        STORE.pop(tuple(key.Floats), None)
    return M["Result"](success=True)


def stores_get(request, context):
    found = [tuple(key.Floats) for key in request.Keys if tuple(key.Floats) in STORE]
    return M["StoresGetResult"](Keys=[M["StoresKey"](Floats=f) for f in found], Values=[M["StoresValue"](Bytes=STORE[f]) for f in found])


def stores_find(request, context):
    def like(floats):
        dot = sum(a * b for a, b in zip(floats, request.Key.Floats))
        return dot / (math.hypot(*floats) * math.hypot(*request.Key.Floats))
    best = sorted(STORE, key=like, reverse=True)[:request.TopK]
    return M["StoresFindResult"](Keys=[M["StoresKey"](Floats=f) for f in best], Values=[M["StoresValue"](Bytes=STORE[f]) for f in best],
                                 Similarities=[like(f) for f in best])


METHODS = {
    "Health": ("HealthMessage", lambda request, context: M["Reply"](message=b"OK")),
    "Free": ("HealthMessage", free),
    "LoadModel": ("ModelOptions", load_model),
    "Predict": ("PredictOptions", predict),
    "PredictStream": ("PredictOptions", predict_stream),
    "Embedding": ("PredictOptions", embedding),
    "TokenizeString": ("PredictOptions", tokenize),
    "Detokenize": ("DetokenizeRequest", lambda request, context: M["DetokenizeResponse"](content="".join(map(chr, request.tokens)))),
    "Status": ("HealthMessage", status),
    "GetMetrics": ("MetricsRequest", lambda request, context: M["MetricsResponse"](
        slot_id=1, tokens_per_second=12.5, tokens_generated=STATE["generated"], prompt_tokens_processed=7)),
    "TTS": ("TTSRequest", tts),
    "TTSStream": ("TTSRequest", tts_stream),
    "AudioTranscription": ("TranscriptRequest", transcribe),
    "Rerank": ("RerankRequest", rerank),
    "StoresSet": ("StoresSetOptions", stores_set),
    "StoresDelete": ("StoresDeleteOptions", stores_delete),
    "StoresGet": ("StoresGetOptions", stores_get),
    "StoresFind": ("StoresFindOptions", stores_find),
}


class Guard(grpc.ServerInterceptor):
    def intercept_service(self, continuation, details):
        told = dict(details.invocation_metadata).get("authorization")
        if TOKEN and told != "Bearer " + TOKEN:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token"))
        return continuation(details)


def main():
    address = sys.argv[sys.argv.index("--addr") + 1]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16), interceptors=[Guard()],
                         options=[("grpc.max_receive_message_length", 50 << 20), ("grpc.max_send_message_length", 60 << 20)])
    handlers = {}
    for name, (request, handler) in METHODS.items():
        make = grpc.unary_stream_rpc_method_handler if name.endswith("Stream") else grpc.unary_unary_rpc_method_handler
        handlers[name] = make(handler, request_deserializer=M[request].FromString, response_serializer=lambda message: message.SerializeToString())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("backend.Backend", handlers),))
    if server.add_insecure_port(address) == 0:
        sys.exit(f"python-backend cannot listen on {address}")
    server.start()
    print(f"python-backend listens on {address}")
    threading.Event().wait()


main()
