"""OpenAI's and Anthropic's SDKs, plain and streamed. Argument: a JSON list of ways to a gateway, each with `base` (without
/v1), `key`, `headers` and the `messages` to send. Prints the texts that each way gave, as one JSON line."""
import json
import sys

from anthropic import Anthropic
from openai import OpenAI


def said(base, key, headers, messages):
    common = dict(api_key=key, default_headers=headers, max_retries=0)
    openai = OpenAI(base_url=base + "/v1", **common)
    anthropic = Anthropic(base_url=base, **common)
    chat = dict(model="mock", messages=messages)
    responses = dict(model="mock", input=messages)
    ask = dict(model="mock", max_tokens=64, messages=messages)
    yield openai.chat.completions.create(**chat).choices[0].message.content
    chunks = openai.chat.completions.create(**chat, stream=True)
    yield "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    yield openai.responses.create(**responses).output_text
    events = openai.responses.create(**responses, stream=True)
    yield "".join(event.delta for event in events if event.type == "response.output_text.delta")
    yield anthropic.messages.create(**ask).content[0].text
    with anthropic.messages.stream(**ask) as stream:
        yield "".join(stream.text_stream)


print(json.dumps([list(said(**way)) for way in json.loads(sys.argv[1])]))
