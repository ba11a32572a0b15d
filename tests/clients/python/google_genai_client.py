"""Google's Gen AI SDK for Gemini: synchronous, and asynchronous."""
import asyncio
import sys

from google import genai
from google.genai import types

options = types.HttpOptions(base_url=sys.argv[1], api_version="v1beta")
client = genai.Client(api_key="test", http_options=options)
answer = client.models.generate_content(model="mock", contents="hello")
assert answer.text, answer


async def main():
    async with client.aio as asynchronous:
        answer = await asynchronous.models.generate_content(model="mock", contents="hello")
        assert answer.text, answer


asyncio.run(main())
print("done")
