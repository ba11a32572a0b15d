"""A relay in front of an engine that keeps what it sends: the truth that the store is compared with."""
import collections, http.client, http.server, threading

Exchange = collections.namedtuple("Exchange", "path status body")
NOT_RELAYED = {"host", "connection", "transfer-encoding", "content-length"}


class Relay(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine_port):
        super().__init__(("127.0.0.1", 0), Handler)
        self.engine_port, self.kept, self.lock = engine_port, {}, threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def keep(self, name, exchange):
        with self.lock:
            self.kept.setdefault(name, []).append(exchange)

    def exchanges(self, name):
        """What the engine sent for the request with this id: several if it was sent again."""
        with self.lock:
            return list(self.kept.get(name, []))

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def relay(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        engine = http.client.HTTPConnection("127.0.0.1", self.server.engine_port, timeout=120)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_RELAYED}
        engine.request(self.command, self.path, body or None, headers)
        response, got = engine.getresponse(), []
        try:
            self.send_response(response.status)
            self.send_header("content-type", response.headers.get("content-type", ""))
            whole = response.headers.get("content-length")
            self.send_header(*(("content-length", whole) if whole else ("transfer-encoding", "chunked")))
            self.end_headers()
            while piece := response.read1(65536):
                got.append(piece)
                self.wfile.write(piece if whole else b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            if not whole:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
        finally:
            engine.close()
            self.server.keep(self.headers.get("x-request-id", ""), Exchange(self.path, response.status, b"".join(got)))

    do_GET = do_POST = relay

    def log_message(self, *_):
        pass
