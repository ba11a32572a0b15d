"""Python httpx over HTTP/1.1: a client, a stream and an asynchronous client."""
import asyncio
import sys

import httpx

base = sys.argv[1]
with httpx.Client() as client:
    echo = client.get(base + "/echo").raise_for_status()
    assert echo.http_version == "HTTP/1.1" and echo.json()["method"] == "GET", echo.text
    with client.stream("GET", base + "/sse", params={"events": 5}) as events:
        lines = [line for line in events.iter_lines() if line.startswith("data:")]
    assert len(lines) == 5, lines


async def main():
    async with httpx.AsyncClient() as client:
        upload = await client.post(base + "/upload", content=b"x" * 100_000)
        assert upload.json() == {"received": 100_000}, upload.text


asyncio.run(main())
print("done")
