"""A gRPC server without generated code: /echo.Echo/Chat sends each message back as it comes, and ends with how many.

Arguments: certificate, key.
"""
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc


def chat(messages, context):
    count = 0
    for message in messages:
        count += 1
        yield message
    context.set_trailing_metadata([("echo-count", str(count))])


certificate, key = (Path(path).read_bytes() for path in sys.argv[1:3])
methods = {"Chat": grpc.stream_stream_rpc_method_handler(chat)}
server = grpc.server(ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo.Echo", methods)])
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
server.start()
print(json.dumps({"port": port}), flush=True)
server.wait_for_termination()
