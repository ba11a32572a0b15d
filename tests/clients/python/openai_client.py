"""OpenAI's Python SDK: plain, streamed, responses, the model list, and asynchronous."""
import asyncio
import sys

from openai import AsyncOpenAI, OpenAI

base = sys.argv[1] + "/v1"
ask = {"model": "mock", "messages": [{"role": "user", "content": "hello"}]}
client = OpenAI(base_url=base, api_key="sk-test")
assert client.chat.completions.create(**ask).choices[0].message.content
stream = client.chat.completions.create(stream=True, **ask)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
assert client.responses.create(model="mock", input="hello").output_text
assert [model.id for model in client.models.list()] == ["mock"]


async def main():
    async with AsyncOpenAI(base_url=base, api_key="sk-test") as client:
        answers = await asyncio.gather(*[client.chat.completions.create(**ask) for _ in range(2)])
        assert all(answer.choices[0].message.content for answer in answers)


asyncio.run(main())
print("done")
