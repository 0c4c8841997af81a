"""A server in front of the Prefect server that fails as a test wants it to."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

DROP = 0
"""In place of a status: the connection is reset."""

LOCKED, MOST_ATTEMPTS = 503, 60
"""What the server says while its SQLite database is locked; clients that try nothing again must not hear it."""

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


@dataclass
class PrefectProxy:
    """What a test sees and sets."""

    url: str
    """Of the API, seen through the proxy."""

    fault: Callable[[str, str], int | None] = lambda method, path: None
    """The status that a request is answered with, or DROP; None passes it on."""

    failed: list[str] = field(default_factory=list)
    """Path of every request that failed."""

    def fail(self, part: str, status: int = DROP, times: int = 1_000_000) -> None:
        """Let the next requests fail whose path holds this part."""
        left = [times]

        def fault(method: str, path: str) -> int | None:
            if part not in path or left[0] == 0:
                return None
            left[0] -= 1
            return status

        self.fault, self.failed[:] = fault, []


@contextmanager
def run_proxy(api_url):
    """Pass requests on to an API."""
    target = urlsplit(api_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = proxy.fault(self.command, self.path)
            if status is None:
                self.pass_on(body)
                return
            proxy.failed.append(self.path)
            if status == DROP:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            else:
                self.answer(status, [("Content-Type", "application/json")], b'{"detail": "as the test wants it"}')

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def pass_on(self, body):
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            for _ in range(MOST_ATTEMPTS):
                upstream = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                if answer.status != LOCKED:
                    break
                time.sleep(0.5)
            self.answer(answer.status, answer.getheaders(), content)

        def answer(self, status, headers, content):
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """Connections that the test broke, and those of clients that went away."""

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = PrefectProxy(f"http://127.0.0.1:{server.server_port}{target.path}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
