"""LangChain's ChatOpenAI: invoke, and stream."""
import sys

from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="mock", base_url=sys.argv[1] + "/v1", api_key="sk-test")
assert model.invoke("hello").content
assert "".join(chunk.content for chunk in model.stream("hello"))
print("done")
