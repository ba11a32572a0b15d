"""Python websockets with permessage-deflate: twenty messages, text and binary by turns. Argument: a wss URL."""
import asyncio
import sys

from websockets.asyncio.client import connect


async def main():
    async with connect(sys.argv[1], compression="deflate") as socket:
        extensions = [extension.name for extension in socket.protocol.extensions]
        assert extensions == ["permessage-deflate"], extensions
        for number in range(20):
            text = f"message {number} " * (number * 100 + 1)
            message = text if number % 2 == 0 else text.encode() + b"\x00\xff"
            await socket.send(message)
            assert await socket.recv() == message, number


asyncio.run(main())
print("done")
