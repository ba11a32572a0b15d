"""Serves "old but fine" over TLS 1.2 with the cipher suites of OpenSSL's list in the third argument, and prints its port."""
import http.server
import json
import ssl
import sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"old but fine")

    def log_message(self, *_):
        pass

certificate, key, ciphers = sys.argv[1:4]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.maximum_version = ssl.TLSVersion.TLSv1_2
context.set_ciphers(ciphers)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(json.dumps({"port": server.server_address[1]}), flush=True)
server.serve_forever()
