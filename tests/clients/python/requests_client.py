"""Python requests: plain functions, and a session that posts and streams."""
import sys

import requests

base = sys.argv[1]
weather = requests.get(base + "/weather", params={"city": "Paris"}, timeout=30)
assert weather.status_code == 200 and weather.json()["city"] == "Paris", weather.text
with requests.Session() as session:
    ask = {"model": "mock", "messages": [{"role": "user", "content": "hello"}]}
    answer = session.post(base + "/v1/chat/completions", json=ask, timeout=30)
    answer.raise_for_status()
    assert answer.json()["choices"][0]["message"]["content"], answer.text
    upload = session.post(base + "/upload", data=b"x" * 100_000, timeout=30)
    assert upload.json() == {"received": 100_000}, upload.text
    with session.get(base + "/sse", params={"events": 5}, stream=True, timeout=30) as events:
        lines = [line for line in events.iter_lines() if line.startswith(b"data:")]
    assert len(lines) == 5, lines
print("done")
