"""An S3 server of our own for tests: small, in this process, and as faulty as a test wants it.

It speaks what staging and the store use (GetObject with ``Range`` and ``If-Match``, HeadObject, PutObject with
``If-None-Match`` and ``If-Match``, DeleteObject, DeleteObjects, ListObjectsV2 with paging), checks no signatures, and
keeps objects in memory, or makes their bytes up as they are read: an object of 20 GB costs nothing here.
"""

import asyncio
import hashlib
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice
from typing import Literal
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

FaultKind = Literal[
    "overwritten",
    "truncated",
    "shortened",
    "short chunk",
    "reset",
    "stalled",
    "silent",
    "slow",
    "500",
    "503",
    "403",
    "409",
    "skew",
    "archived",
    "moved",
    "range ignored",
    "other range",
    "no etag",
    "wrong checksum",
    "error with 200",
]
PAGE = 300
"""Objects on a page of a listing: of S3's 1,000 most tests would see one page only."""
_REFUSALS = {
    "403": (403, "AccessDenied"),
    "409": (409, "OperationAborted"),
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "archived": (403, "InvalidObjectState"),
    "error with 200": (200, "InternalError"),
    "moved": (301, "PermanentRedirect"),
    "skew": (403, "RequestTimeTooSkewed"),
}
_MODIFIED = datetime(2024, 5, 17, 12, 0, 0, tzinfo=timezone.utc)
_STALL_S = 60.0
_SLOW_S = 0.05
"""Before each 256 KiB: some 5 MB a second."""


@dataclass
class StoredObject:
    """One object: its bytes, or what makes them."""

    num_bytes: int
    read: Callable[[int, int], bytes]
    """Gives the bytes from a start to an end."""

    etag: str
    """With its quotes."""

    modified: datetime = _MODIFIED


def stored(content: bytes) -> StoredObject:
    """An object with these bytes."""
    etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
    return StoredObject(len(content), lambda start, end: content[start:end], etag)


def made_up(num_bytes: int, seed: int = 0) -> StoredObject:
    """An object of any size whose bytes are made as they are read: a mebibyte, again and again."""
    block = hashlib.shake_256(str(seed).encode()).digest(1 << 20)

    def read(start: int, end: int) -> bytes:
        turns = (end - 1) // len(block) - start // len(block) + 1
        return (block * turns)[start % len(block) :][: end - start]

    return StoredObject(num_bytes, read, f'"made-up-{seed}-{num_bytes}"')


@dataclass
class Fault:
    """Something that goes wrong with reads of objects.

    Args:
        kind: What goes wrong.
        strikes: Whether it strikes at the nth read, from 1, of an object.
    """

    kind: FaultKind
    strikes: Callable[[str, int], bool] = lambda key, nth: True
    num_strikes: int = 0


@dataclass
class FaultServer:
    """What a test sees and sets."""

    endpoint_url: str = ""
    buckets: dict[str, dict[str, StoredObject]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    """Key of every GET of an object, in their order."""

    read_ranges: list[str] = field(default_factory=list)
    """The ``Range`` of every GET, empty where it had none."""

    read_conditions: list[str] = field(default_factory=list)
    """The ``If-Match`` of every GET, empty where it had none."""

    sent_bytes: int = 0
    """Bytes of objects that were sent."""

    num_lists: int = 0
    """Pages of listings that were sent."""

    weak_etags: bool = False
    """Whether the ETags of answers to reads are weak, as behind a proxy that may encode them."""

    moved: bool = False
    """Whether the server says of everything that it is elsewhere, and not where."""

    enforce_if_match: bool = True
    conditional_puts: bool = True
    range_status: int = 206
    """What a range is answered with; rclone's server says 200."""

    on_read: Callable[[str, int], None] = lambda key, nth: None
    """Called before the nth GET of an object is answered."""

    on_page: Callable[[int, str], "str | web.Response"] = lambda nth, page: page
    """Makes the answer of the nth page of a listing, from 1, out of its XML."""

    page_size: int = PAGE
    """Most objects on a page."""

    authorizations: set[str] = field(default_factory=set)
    """The ``Authorization`` headers that came, one a request."""

    session_tokens: set[str] = field(default_factory=set)
    user_agents: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)

    def put(self, bucket: str, objects: dict[str, bytes]) -> None:
        """Keep objects in a bucket."""
        self.buckets.setdefault(bucket, {}).update({key: stored(content) for key, content in objects.items()})

    def add_fault(self, kind: FaultKind, strikes: Callable[[str, int], bool] = lambda key, nth: True) -> Fault:
        """Let something go wrong from now on."""
        fault = Fault(kind, strikes)
        self.faults.append(fault)
        return fault


class _Service:
    def __init__(self, server: FaultServer) -> None:
        self.server = server
        self.nth: Counter[str] = Counter()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        server = self.server
        server.hosts.add(request.headers.get("Host", ""))
        server.authorizations.add(request.headers.get("Authorization", ""))
        server.user_agents.add(request.headers.get("User-Agent", ""))
        server.session_tokens.add(request.headers.get("X-Amz-Security-Token", ""))
        path = unquote(request.raw_path.partition("?")[0]).lstrip("/")
        host = request.headers.get("Host", "").partition(":")[0]
        if host.endswith(".localhost"):
            path = f"{host.removesuffix('.localhost')}/{path}"
        name, _, key = path.partition("/")
        query = {k: v[-1] for k, v in parse_qs(request.query_string, keep_blank_values=True).items()}
        if server.moved:
            return web.Response(status=301)
        bucket = server.buckets.get(name)
        if bucket is None:
            return _error(404, "NoSuchBucket")
        if not key:
            return await self._bucket_request(request, bucket, query)
        match request.method:
            case "GET" | "HEAD":
                return await self._read(request, bucket, key)
            case "PUT":
                return await self._write(request, bucket, key)
            case "DELETE":
                bucket.pop(key, None)
                return web.Response(status=204)
        return _error(405, "MethodNotAllowed")

    async def _bucket_request(self, request, bucket, query):
        if request.method == "POST" and "delete" in query:
            keys = [e.text for e in ElementTree.fromstring(await request.read()).iter() if e.tag.endswith("Key")]
            for key in keys:
                bucket.pop(key, None)
            return _xml("<DeleteResult></DeleteResult>")
        if request.method == "HEAD":
            return web.Response()
        nth, _, after = query.get("continuation-token", "").partition(":")
        answer = self.server.on_page(int(nth or 1), self._list_page(bucket, query, int(nth or 1), after))
        return _xml(answer) if isinstance(answer, str) else answer

    def _list_page(self, bucket, query, nth, after):
        self.server.num_lists += 1
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = after or query.get("start-after", "")
        limit = min(int(query.get("max-keys", self.server.page_size)), self.server.page_size)
        contents, folders, last, more = [], [], "", False
        keys = self._sorted_keys(bucket)
        for key in islice(keys, bisect_right(keys, after), None):
            if not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            folder = prefix + rest.split(delimiter, 1)[0] + delimiter if delimiter and delimiter in rest else ""
            if folder and (folder in folders or folder <= after):
                last = key
                continue
            if len(contents) + len(folders) == limit:
                more = True
                break
            last = key
            folders.append(folder) if folder else contents.append(key)
        parts = [f"<IsTruncated>{str(more).lower()}</IsTruncated><KeyCount>{len(contents) + len(folders)}</KeyCount>"]
        parts += [f"<NextContinuationToken>{nth + 1}:{escape(last)}</NextContinuationToken>"] if more else []
        for key in contents:
            found = bucket[key]
            parts.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{found.num_bytes}</Size>"
                f"<ETag>{escape(found.etag)}</ETag><LastModified>{found.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
        parts += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        return f"<ListBucketResult><Name>b</Name>{''.join(parts)}</ListBucketResult>"

    def _sorted_keys(self, bucket):
        cached = getattr(self, "_sorted", None)
        if cached is None or cached[0] is not bucket or len(cached[1]) != len(bucket):
            self._sorted = cached = (bucket, sorted(bucket))
        return cached[1] if len(bucket) > 1000 else sorted(bucket)

    async def _write(self, request, bucket, key):
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer proper has not begun
        content = await request.read()
        found = bucket.get(key)
        if self.server.conditional_puts:
            if request.headers.get("If-None-Match") == "*" and found is not None:
                return _error(412, "PreconditionFailed")
            wanted = request.headers.get("If-Match")
            if wanted and (found is None or found.etag != wanted):
                return _error(412 if found else 404, "PreconditionFailed" if found else "NoSuchKey")
        bucket[key] = stored(content)
        bucket[key].modified = datetime.now(timezone.utc)
        return web.Response(headers={"ETag": bucket[key].etag})

    async def _read(self, request, bucket, key):
        server = self.server
        fault = None
        if request.method == "GET":
            self.nth[request.raw_path] += 1
            server.reads.append(key)
            server.read_ranges.append(request.headers.get("Range", ""))
            server.read_conditions.append(request.headers.get("If-Match", ""))
            server.on_read(key, self.nth[request.raw_path])
            fault = next((fault for fault in server.faults if fault.strikes(key, self.nth[request.raw_path])), None)
        if fault:
            fault.num_strikes += 1
        kind = fault.kind if fault else None
        if kind == "overwritten":
            bucket[key] = stored(b"overwritten: " + bucket[key].read(0, min(bucket[key].num_bytes, 1 << 20)))
        found = bucket.get(key)
        if found is None:
            return _error(404, "NoSuchKey")
        wanted = request.headers.get("If-Match")
        if wanted and server.enforce_if_match and wanted != found.etag:
            return _error(412, "PreconditionFailed")
        if kind in _REFUSALS:
            return _error(*_REFUSALS[kind])
        if kind == "silent":
            await asyncio.sleep(_STALL_S)
        return await self._send(request, found, kind)

    async def _send(self, request, found, kind):
        start, end, status = 0, found.num_bytes, 200
        if (wanted := request.headers.get("Range")) and kind != "range ignored":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last) + 1 if last else end, end), self.server.range_status
            if start >= found.num_bytes:
                return _error(416, "InvalidRange")
            if kind == "other range":
                start, end = max(0, start - 1000), end - min(start, 1000)
        if kind == "shortened":  # and the answer says nothing else: its length is that of what is sent
            end = start + (end - start) // 2
        headers = {
            "ETag": found.etag,
            "Last-Modified": f"{found.modified:%a, %d %b %Y %H:%M:%S GMT}",
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if wanted and kind != "range ignored":
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.num_bytes}"
        answer = web.StreamResponse(status=status, headers=headers)
        if kind == "no etag":
            del answer.headers["ETag"]
        elif self.server.weak_etags:
            answer.headers["ETag"] = f"W/{found.etag}"
        if kind == "wrong checksum":
            answer.headers["x-amz-checksum-crc32"] = "AAAAAA=="
        if kind == "short chunk":
            answer.enable_chunked_encoding()
        else:
            answer.content_length = end - start
        if request.method == "HEAD":
            await answer.prepare(request)
            return answer
        await answer.prepare(request)
        stop = start + (end - start) // 2 if kind in ("truncated", "short chunk", "reset", "stalled") else end
        for position in range(start, stop, 1 << 18):
            data = found.read(position, min(position + (1 << 18), stop))
            self.server.sent_bytes += len(data)
            await answer.write(data)
            if kind == "slow":
                await asyncio.sleep(_SLOW_S)
        if kind == "stalled":
            await asyncio.sleep(_STALL_S)
        if kind in ("truncated", "stalled"):
            request.transport.close()
        elif kind == "reset":
            request.transport.abort()
        else:
            await answer.write_eof()
        return answer


def _error(status: int, code: str) -> web.Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _xml(text: str) -> web.Response:
    return web.Response(text=f"<?xml version='1.0' encoding='UTF-8'?>{text}", content_type="application/xml")


@contextmanager
def run_fault_server() -> Iterator[FaultServer]:
    """Serve on a free port of 127.0.0.1, in a thread of this process, until the block ends."""
    server, loop, ready = FaultServer(), asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.ServerRunner(web.Server(_Service(server)), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.endpoint_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
