"""LiteLLM: a completion, plain and streamed. Its price list is the one in the package, not one from the network."""
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

ask = {"model": "openai/mock", "messages": [{"role": "user", "content": "hello"}]}
server = {"api_base": sys.argv[1] + "/v1", "api_key": "sk-test"}
assert litellm.completion(**ask, **server).choices[0].message.content
stream = litellm.completion(**ask, **server, stream=True)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream)
print("done")
