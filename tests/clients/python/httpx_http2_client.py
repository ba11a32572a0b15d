"""Python httpx with http2=True: several requests at once on one HTTP/2 connection."""
import asyncio
import sys

import httpx

base = sys.argv[1]


async def main():
    async with httpx.AsyncClient(http2=True) as client:
        answers = await asyncio.gather(*[client.get(base + "/weather", params={"city": "Paris"}) for _ in range(3)])
        for answer in answers:
            assert answer.http_version == "HTTP/2", answer.http_version
            assert answer.json()["city"] == "Paris", answer.text
        upload = await client.post(base + "/upload", content=b"x" * 100_000)
        assert upload.http_version == "HTTP/2" and upload.json() == {"received": 100_000}, upload.text


asyncio.run(main())
print("done")
