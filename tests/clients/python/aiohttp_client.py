"""Python aiohttp with an ordinary session, which reads no proxy from the environment by itself."""
import asyncio
import sys

import aiohttp

base = sys.argv[1]


async def main():
    async with aiohttp.ClientSession() as session:
        async with session.get(base + "/weather", params={"city": "Paris"}) as weather:
            assert weather.status == 200, weather.status
            assert (await weather.json())["city"] == "Paris"
        async with session.post(base + "/upload", data=b"x" * 100_000) as upload:
            assert await upload.json() == {"received": 100_000}
        async with session.get(base + "/sse", params={"events": 5}) as events:
            lines = [line async for line in events.content if line.startswith(b"data:")]
        assert len(lines) == 5, lines
        async with session.ws_connect(base + "/ws") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"


asyncio.run(main())
print("done")
