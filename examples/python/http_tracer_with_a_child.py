"""Records the calls of a function that runs in a child process, with the HttpTracer that Agent Lightning 0.2 had.

    python examples/python/http_tracer_with_a_child.py

Needs Agent Lightning, 0.2 or 0.3. The function also starts a program: its calls are recorded, too.
"""

import subprocess
import sys
import threading
import urllib.request
from http.server import HTTPServer, SimpleHTTPRequestHandler

from tracewire.agentlightning import HttpTracer

server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"


def agent(question: str) -> int:
    """Call the server from this process, and from a program."""
    status: int = urllib.request.urlopen(f"{url}/?question={question}").status
    tool = f"import urllib.request; urllib.request.urlopen('{url}/?tool')"
    subprocess.run([sys.executable, "-c", tool], check=True)
    return status


tracer = HttpTracer(include_headers=True, subprocess_mode=True, subprocess_timeout=60)
print("the function returned", tracer.trace_run(agent, "why"))
for span in tracer.get_last_trace():
    print(span.name, span.attributes["http.status_code"])
server.shutdown()
