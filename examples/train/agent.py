"""An agent of two turns. It wants the model to repeat a letter; the reward is the share of right letters."""
import http.client
import json
import os
import sys
from urllib.parse import urlsplit

task = json.load(sys.stdin)
messages, answers = [], ""
base = urlsplit(os.environ["OPENAI_BASE_URL"])
gateway = http.client.HTTPConnection(base.netloc)
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
for _ in range(2):
    messages.append({"role": "user", "content": task["letter"]})
    body = json.dumps({"model": "policy", "messages": messages, "temperature": 1.0}).encode()
    gateway.request("POST", base.path + "/chat/completions", body, headers)
    answer = json.load(gateway.getresponse())["choices"][0]["message"]["content"]
    messages.append({"role": "assistant", "content": answer})
    answers += answer
print(json.dumps({"reward": answers.count(task["letter"]) / len(answers)}))
