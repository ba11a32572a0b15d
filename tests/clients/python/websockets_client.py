"""Python websockets: text and binary messages, asynchronous."""
import asyncio
import sys

from websockets.asyncio.client import connect

url = sys.argv[1].replace("https://", "wss://") + "/ws"


async def main():
    async with connect(url) as socket:
        for message in ["hello", "grüße", b"\x00\x01\xff", "x" * 100_000]:
            await socket.send(message)
            assert await socket.recv() == message


asyncio.run(main())
print("done")
