"""OpenAI's and Anthropic's SDKs, plain and streamed. Argument: JSON with `base` (without /v1), `key`, `headers` and
`messages`. Prints the texts they got, as one JSON line."""
import json
import sys

from anthropic import Anthropic
from openai import OpenAI

given = json.loads(sys.argv[1])
base, messages = given["base"], given["messages"]
common = dict(api_key=given["key"], default_headers=given["headers"], max_retries=0)
openai = OpenAI(base_url=base + "/v1", **common)
anthropic = Anthropic(base_url=base, **common)
chat = dict(model="mock", messages=messages)
responses = dict(model="mock", input=messages)
ask = dict(model="mock", max_tokens=64, messages=messages)
said = [openai.chat.completions.create(**chat).choices[0].message.content]
chunks = openai.chat.completions.create(**chat, stream=True)
said.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
said.append(openai.responses.create(**responses).output_text)
events = openai.responses.create(**responses, stream=True)
said.append("".join(event.delta for event in events if event.type == "response.output_text.delta"))
said.append(anthropic.messages.create(**ask).content[0].text)
with anthropic.messages.stream(**ask) as stream:
    said.append("".join(stream.text_stream))
print(json.dumps(said))
