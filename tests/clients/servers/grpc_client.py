"""gRPC for Python: a hundred messages on one bidirectional stream, one out, one back. Argument: host:port."""
import queue
import sys

import grpc

outgoing = queue.SimpleQueue()
with grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials()) as channel:
    call = channel.stream_stream("/echo.Echo/Chat")(iter(outgoing.get, None), timeout=60)
    for number in range(100):
        message = f"message {number} ".encode() * (number + 1)
        outgoing.put(message)
        assert next(call) == message, number
    outgoing.put(None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK, call.details()
    assert dict(call.trailing_metadata())["echo-count"] == "100", call.trailing_metadata()
print("done")
