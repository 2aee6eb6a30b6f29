"""grpcio as a peer: `rpc.py serve` is the service Echo until its input ends, `rpc.py call TARGET` uses one and prints what it met."""
import json
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf.wrappers_pb2 import StringValue

SERVICE = "modelhost.test.Echo"
OPTIONS = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_send_message_length", 16 << 20)]
CODES = {code.value[0]: code for code in grpc.StatusCode}


def serve():
    def say(request, context):
        word, _, rest = request.value.partition(" ")
        if word == "fail":
            code, _, detail = rest.partition(" ")
            context.abort(CODES[int(code)], detail)
        if word == "hang":
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait()
        return request

    def count(request, context):
        for i in range(int(request.value.rstrip("!"))):
            yield StringValue(value=str(i))
        if request.value.endswith("!"):
            context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")

    def join(requests, context):
        return StringValue(value="".join(request.value for request in requests))

    def talk(requests, context):
        yield from requests

    def handler(make, behaviour):
        return make(behaviour, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString)

    server = grpc.server(futures.ThreadPoolExecutor(16), options=OPTIONS, compression=grpc.Compression.Gzip)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
        "Say": handler(grpc.unary_unary_rpc_method_handler, say),
        "Count": handler(grpc.unary_stream_rpc_method_handler, count),
        "Join": handler(grpc.stream_unary_rpc_method_handler, join),
        "Talk": handler(grpc.stream_stream_rpc_method_handler, talk),
    }),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()
    server.stop(None)


def call(target):
    channel = grpc.insecure_channel(target, options=OPTIONS, compression=grpc.Compression.Gzip)

    def method(kind, name):
        return getattr(channel, kind)(f"/{SERVICE}/{name}", StringValue.SerializeToString, StringValue.FromString)

    def unary(method, request, **options):
        try:
            return {"value": method(request, **options).value}
        except grpc.RpcError as error:
            return {"code": error.code().value[0], "detail": error.details()}

    def stream(call):
        values = []
        try:
            for message in call:
                values.append(message.value)
            return {"values": values, "code": 0, "detail": ""}
        except grpc.RpcError as error:
            return {"values": values, "code": error.code().value[0], "detail": error.details()}

    def texts(*values):
        return (StringValue(value=value) for value in values)

    say, count = method("unary_unary", "Say"), method("unary_stream", "Count")
    heard, told = [], threading.Semaphore(1)

    def questions():
        for i in range(5):
            told.acquire()
            yield StringValue(value=str(i))

    for answer in method("stream_stream", "Talk")(questions()):
        heard.append(answer.value)
        told.release()
    many = [say.future(StringValue(value=str(i))) for i in range(250)]
    long = unary(say, StringValue(value="x" * (9 << 20)))
    print(json.dumps({
        "say": unary(say, StringValue(value="Grüße")),
        "sayPlain": unary(say, StringValue(value="Grüße"), compression=grpc.Compression.NoCompression),
        "fail": unary(say, StringValue(value="fail NotFound 100% schön\n日本")),
        "hang": unary(say, StringValue(value="hang"), timeout=3),
        "count": stream(count(StringValue(value="3"))),
        "broken": stream(count(StringValue(value="3!"))),
        "join": unary(method("stream_unary", "Join"), texts("a", "b", "c")),
        "talk": heard,
        "unknown": unary(method("unary_unary", "No"), StringValue()),
        "long": len(long["value"]) if "value" in long else long["code"],
        "many": all(answer.result().value == str(i) for i, answer in enumerate(many)),
    }))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        call(sys.argv[2])
