"""Anthropic's Python SDK: plain, and streamed."""
import sys

from anthropic import Anthropic

client = Anthropic(base_url=sys.argv[1], api_key="sk-ant-test")
ask = {"model": "mock", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
message = client.messages.create(**ask)
assert message.content[0].text and message.stop_reason == "end_turn", message
with client.messages.stream(**ask) as stream:
    text = "".join(stream.text_stream)
    assert text == stream.get_final_message().content[0].text and text
print("done")
