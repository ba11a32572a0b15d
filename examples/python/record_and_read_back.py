"""Runs an agent behind Tracewire, and reads back what it did on the network.

    python examples/python/record_and_read_back.py

The agent is a child process in any language; this one is Python. The model is Tracewire's mock, so no key is needed.
"""

import subprocess
import sys

import tracewire

AGENT = """
import json, sys, urllib.request
body = {"model": "mock", "messages": [{"role": "user", "content": "hello"}]}
request = urllib.request.Request(sys.argv[1], json.dumps(body).encode(), {"content-type": "application/json"})
print(json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"])
"""

# A model server. It prints its address when it is ready.
mock = subprocess.Popen([tracewire.find_binary(), "mock", "--http", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
assert mock.stdout is not None
url = next(word for line in mock.stdout for word in line.split() if word.startswith("http://")).rstrip("/,")

try:
    # `store="traces.db"` would keep the spans in a file.
    with tracewire.run([sys.executable, "-c", AGENT, f"{url}/v1/chat/completions"], store="memory:") as run:
        print("exit code", run.wait())
        for span in run.spans():
            found = span["attributes"]
            print(span["name"], found["http.response.status_code"], found["gen_ai.usage.output_tokens"], "tokens")
        for row in run.trajectories(run.rollout, shape="messages"):
            print("row for training:", row["messages"])
finally:
    mock.terminate()
    mock.wait()
