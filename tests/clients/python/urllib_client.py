"""Python's own urllib.request."""
import json
import sys
import urllib.request

base = sys.argv[1]
with urllib.request.urlopen(base + "/weather?city=Paris", timeout=30) as answer:
    assert answer.status == 200 and json.load(answer)["city"] == "Paris"
ask = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "hello"}]}).encode()
request = urllib.request.Request(base + "/v1/chat/completions", ask, {"content-type": "application/json"})
with urllib.request.urlopen(request, timeout=30) as answer:
    assert json.load(answer)["choices"][0]["message"]["content"]
print("done")
