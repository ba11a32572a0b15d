"""Git's smart HTTP over TLS, both ways as a stream. Arguments: certificate, key, a repository or a folder of them."""
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

certificate, key, root = sys.argv[1:4]
PIECE = 64 * 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        path, _, query = self.path.partition("?")
        fields = {
            "GIT_PROJECT_ROOT": os.path.abspath(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_USER": "tester",  # who may push
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        environment = os.environ | {name: value for name, value in fields.items() if value}
        pipe = subprocess.PIPE
        with subprocess.Popen(["git", "http-backend"], stdin=pipe, stdout=pipe, env=environment) as backend:
            feeder = threading.Thread(target=self.feed, args=[backend.stdin])
            feeder.start()
            self.answer(backend.stdout)
            feeder.join()

    do_POST = do_GET

    def feed(self, stdin):
        """The request's body to the backend; what the backend no longer reads is dropped."""
        with open(os.devnull, "wb") as nowhere:
            for piece in self.body():
                try:
                    stdin.write(piece)
                except BrokenPipeError:
                    stdin = nowhere
            try:
                stdin.close()
            except BrokenPipeError:
                pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, PIECE))):
            left -= len(piece)
            yield piece

    def answer(self, stdout):
        """The backend's head as a response's head, then its body in chunks as they come."""
        fields = parse_headers(stdout)
        self.send_response(int(fields.get("Status", "200").split()[0]))
        for name, value in fields.items():
            if name not in ("Status", "Content-Length"):
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := stdout.read1(PIECE):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


if not shutil.which("git"):
    sys.exit("git: command not found")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
# The handshake is the connection's own thread's, so that one that is slow holds up no other.
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(json.dumps({"port": server.server_port}), flush=True)
server.serve_forever()
