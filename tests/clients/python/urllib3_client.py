"""Python urllib3 by itself: a PoolManager reads no environment, so its users name the proxy as its manual shows."""
import os
import sys

import urllib3

base = sys.argv[1]
http = urllib3.proxy_from_url(os.environ["HTTPS_PROXY"])
weather = http.request("GET", base + "/weather", fields={"city": "Paris"})
assert weather.status == 200 and weather.json()["city"] == "Paris", weather.data
upload = http.request("POST", base + "/upload", body=b"x" * 100_000)
assert upload.json() == {"received": 100_000}, upload.data
events = http.request("GET", base + "/sse?events=5", preload_content=False)
assert sum(line.startswith(b"data:") for line in events) == 5
events.release_conn()
print("done")
