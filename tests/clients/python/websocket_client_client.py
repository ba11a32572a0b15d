"""Python websocket-client: text and binary messages."""
import sys

import websocket

socket = websocket.create_connection(sys.argv[1].replace("https://", "wss://") + "/ws", timeout=30)
socket.send("hello")
assert socket.recv() == "hello"
socket.send_binary(b"\x00\x01\xff")
assert socket.recv() == b"\x00\x01\xff"
socket.close()
print("done")
