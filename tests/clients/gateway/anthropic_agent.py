"""An agent on Anthropic's SDK that knows nothing of proxies: it is asked, calls its tool, and answers; plain, then
streamed. Prints both answers, as one JSON line."""
import json

from anthropic import Anthropic

client = Anthropic(max_retries=0)
TOOLS = [{"name": "weather", "description": "The weather in a city", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]


def weather(city):
    return f"It is clear in {city}, 21 degrees"


def streamed(**asked):
    with client.messages.stream(**asked) as stream:
        return stream.get_final_message()


def answer(create, question):
    messages = [{"role": "user", "content": question}]
    for _ in range(4):
        message = create(model="claude-test", max_tokens=256, system="You know the weather.", tools=TOOLS, messages=messages)
        messages.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]})
        if message.stop_reason != "tool_use":
            return "".join(block.text for block in message.content)
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": weather(**block.input)}
                   for block in message.content if block.type == "tool_use"]
        messages.append({"role": "user", "content": results})
    raise RuntimeError("it calls its tool for ever")


print(json.dumps([answer(client.messages.create, "Is it clear in Paris?"), answer(streamed, "And is it warm there?")]))
