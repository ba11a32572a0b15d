"""An agent on OpenAI's SDK that knows nothing of proxies: a plain call, a streamed one, and one that is no call of a
model. Prints what it got, as one JSON line."""
import json
import sys

from openai import APIStatusError, OpenAI

client = OpenAI(max_retries=0)
asked = dict(model="gpt-5", messages=json.loads(sys.argv[1]))
said = [client.chat.completions.create(**asked).choices[0].message.content]
chunks = client.chat.completions.create(**asked, stream=True)
said.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
try:
    status = client.files.list() and 200
except APIStatusError as error:
    status = error.status_code
print(json.dumps([*said, status]))
