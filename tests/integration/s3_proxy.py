"""A small proxy in front of an S3 server: counts what is read, and does what networks and people do midway."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class S3Proxy:
    """What a test sees and sets."""

    upstream_url: str
    """The server behind it; may be set anew."""

    endpoint_url: str = ""
    """Its own address."""

    reads: list[str] = field(default_factory=list)
    """Path of every GET of an object, ``/bucket/key``."""

    before_read: Callable[[str, int], None] = lambda path, nth: None
    """Called before the nth GET of an object, counted over all objects from 1, is passed on."""

    cut_reads_from: int | None = None
    """From this GET on, answers end after half of their bytes."""

    enforce_if_match: bool = True
    """Answer 412 to a GET whose ``If-Match`` is not the object's ETag, as S3 does and rclone does not."""


@contextmanager
def run_s3_proxy(upstream_url: str) -> Iterator[S3Proxy]:
    """Stand in front of a server until the block ends."""
    proxy = S3Proxy(upstream_url)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._pass_on()

        do_HEAD = do_PUT = do_GET

        def log_message(self, *args):
            pass

        def _pass_on(self):
            nth = self._count_read()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection(urlsplit(proxy.upstream_url).netloc)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the signature covers them: passed on as they are
                upstream.putheader(name, value)
            upstream.endheaders(body)
            self._answer(upstream.getresponse(), nth)
            upstream.close()

        def _count_read(self):
            path = unquote(urlsplit(self.path).path)
            if self.command != "GET" or len(path.strip("/").split("/")) < 2:
                return 0
            with lock:
                proxy.reads.append(path)
                nth = len(proxy.reads)
            proxy.before_read(path, nth)
            return nth

        def _answer(self, answer, nth):
            data = answer.read()
            wanted = self.headers.get("If-Match")
            if nth and proxy.enforce_if_match and wanted and wanted != answer.headers["ETag"]:
                data = b"<Error><Code>PreconditionFailed</Code><Message>At least one of the pre-conditions you "
                data += b"specified did not hold</Message></Error>"
                self.send_response(412)
            else:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                        self.send_header(name, value)
            length = answer.headers.get("Content-Length", len(data)) if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            cut = bool(nth) and proxy.cut_reads_from is not None and nth >= proxy.cut_reads_from
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.endpoint_url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
