"""The one module that imports obstore: reads of S3 objects without the cost of s3fs's Python loop.

s3fs stays the judge. Its client says who asks, where and how (credentials, endpoint, region, addressing), so that an
option means the same to both; and what obstore cannot read for any reason is read by s3fs, whose errors are
translated. A fast read is therefore either right or not there.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainyard.tasks.artifacts.digests import CHUNK_BYTES
from trainyard.tasks.artifacts.objects import bare_etag
from trainyard.tasks.artifacts.read_ahead import never

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
    from obstore.store import S3Config, S3Credential, S3Store

log = logging.getLogger(__name__)

_HEAD_BYTES = 1 << 18
OVERLAP_BYTES = 64
_HEAD, _REST = f"bytes=0-{_HEAD_BYTES - 1}", f"bytes={_HEAD_BYTES - OVERLAP_BYTES}-"
"""The two answers that an object is streamed in: a short one, and all that follows. obstore does not tell which bytes
an answer says that it is of (``Content-Range``); that the second begins with the end of the first one does."""
_BLOCK_LASTS, _STREAM_LASTS = timedelta(minutes=10), timedelta(days=1)
"""How long an answer may take as a whole; what notices a stall is the read timeout."""
_GIVE_UP_AFTER = 3
_CREDENTIALS_LAST = timedelta(minutes=5)
_KNOWN_CLIENT_OPTIONS = {
    "endpoint_url",
    "region_name",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "use_ssl",
}


class FastReader:
    """Reads byte ranges of S3 objects through obstore; any thread may use it.

    Args:
        fs: The s3fs filesystem whose client says how to ask.
    """

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self._stores: dict[tuple[str, str], S3Store] = {}
        self._lock = threading.Lock()
        self._failures = 0
        self._gives_ranges: bool | None = None

    @classmethod
    def of(cls, fs: Any) -> "FastReader | None":
        """The reader that belongs to a filesystem; None where obstore is missing or cannot do as s3fs does.

        Kept on the filesystem: fsspec hands the same one to all who open the same place.
        """
        if not hasattr(fs, "_trainyard_fast_reader"):
            fs._trainyard_fast_reader = cls(fs) if _can_stand_in(fs) else None
        reader: FastReader | None = fs._trainyard_fast_reader
        return reader

    def read(
        self,
        path: str,
        etag: str,
        byte_range: tuple[int, int],
        is_stopped: Callable[[], bool] = never,
        *,
        is_whole: bool,
    ) -> memoryview | None:
        """Bytes of one version of an object, at once.

        Args:
            path: ``bucket/key``.
            etag: What ``If-Match`` asks for, in quotes.
            byte_range: First byte, and the byte after the last one.
            is_stopped: Whether nobody waits for them any more; asked with each mebibyte.
            is_whole: Whether that is all of the object, which is then asked for without a range.

        Returns:
            The bytes; None where it did not work, whatever the reason, or where others would have come, or too late.
        """
        if self._failures >= _GIVE_UP_AFTER:
            return None
        try:
            answer = self._get(path, etag, None if is_whole else byte_range)
            if not _is_version(answer, etag) or answer.range != byte_range:
                return None  # before the body is read, which may be of any size
            num_bytes = byte_range[1] - byte_range[0]
            data = memoryview(answer.bytes()) if num_bytes <= CHUNK_BYTES else _joined(answer, num_bytes, is_stopped)
        except Exception as error:  # whatever it is, s3fs reads next and says what is wrong
            _log_failure(path, error)
            return None
        return data if len(data) == num_bytes else None

    def read_newest(self, path: str, most_bytes: int) -> memoryview | None:
        """An object in whatever version it has now: one answer is of one version.

        Args:
            path: ``bucket/key``.
            most_bytes: What may come in one answer.

        Returns:
            All of its bytes; None where they are more, or where it did not work, whatever the reason.
        """
        if self._failures >= _GIVE_UP_AFTER:
            return None
        try:
            answer = self._get(path, None, None)
            num_bytes = answer.meta["size"]
            data = memoryview(answer.bytes()) if num_bytes <= most_bytes else None
        except Exception as error:  # whatever it is, s3fs reads next and says what is wrong
            _log_failure(path, error)
            return None
        return data if data is not None and len(data) == num_bytes else None

    def stream(self, path: str, etag: str, num_bytes: int, first: int = 0, before: bytes = b"") -> Iterator[memoryview]:
        """The bytes of one version of an object as they arrive, where the server does not give ranges as it should.

        Most of them come in one answer. It does not begin at the first byte: of one that does, rclone's server
        makes an MD5 for nobody, and sends no faster than that.

        Args:
            path: ``bucket/key``.
            etag: What ``If-Match`` asks for, in quotes.
            num_bytes: Size of the object, more than ``_HEAD_BYTES``.
            first: The first byte that is wanted.
            before: The bytes right before it, from which it is known that an answer begins where it should; without
                them, all of the object is taken, if that is what comes.

        Yields:
            Bytes in their order; fewer than there are where something fails, whatever the reason.
        """
        if self._failures >= _GIVE_UP_AFTER:
            return
        try:
            given, end = first, before
            rest = ((f"bytes={first - len(before)}-", first - len(before)),)
            for range_header, start in rest if first else ((_HEAD, 0), (_REST, _HEAD_BYTES - OVERLAP_BYTES)):
                answer = self._get(path, etag, None, range_header)
                sent = answer.meta["size"]
                is_whole = range_header != _REST and sent == num_bytes  # of a server that knows no ranges
                is_part = sent == (_HEAD_BYTES if range_header == _HEAD else num_bytes - start)
                is_proven = is_whole or (is_part and bool(end or not start))
                if not (_is_version(answer, etag) and is_proven):
                    return
                chunks = answer.stream(min_chunk_size=CHUNK_BYTES)
                for chunk in _beyond(first, chunks) if is_whole else _after(end, chunks):
                    given += len(chunk)
                    yield chunk
                    end = bytes(chunk[-OVERLAP_BYTES:])
                if is_whole or given != start + sent:  # nothing may follow a short answer
                    return
        except Exception as error:  # whatever it is, s3fs reads next and says what is wrong
            _log_failure(path, error)

    def gives_ranges(self, path: str, etag: str) -> bool:
        """Whether the server answers a ranged read as RFC 9110 asks (206), else obstore refuses it; asked once.

        rclone's server, for one, sends the range and says 200; ``stream`` reads from such a server.
        """
        if self._gives_ranges is None:
            self._gives_ranges = self.read(path, etag, (0, 1), is_whole=False) is not None
        return self._gives_ranges

    def count(self, *, failed: bool) -> None:
        """Remember that s3fs could read what obstore could not, several times in a row: then obstore is left alone."""
        self._failures = self._failures + 1 if failed else 0
        if self._failures == _GIVE_UP_AFTER:
            log.info("obstore cannot read from this server as s3fs can; s3fs reads from here on.")

    def _get(
        self, path: str, etag: str | None, byte_range: tuple[int, int] | None, range_header: str = ""
    ) -> "GetResult":
        """Ask for an object.

        Args:
            path: ``bucket/key``.
            etag: What ``If-Match`` asks for; None for whatever version it has now.
            byte_range: What obstore asks for; it refuses any answer but 206.
            range_header: A range that obstore does not know of, and that is therefore answered by 200 as well.
        """
        import obstore

        bucket, _, key = path.partition("/")
        options: GetOptions = {}
        if etag is not None:
            options["if_match"] = etag
        if byte_range:
            options["range"] = byte_range
        return obstore.get(self._store(bucket, range_header), key, options=options)

    def _store(self, bucket: str, range_header: str) -> "S3Store":
        name = bucket, range_header
        store = self._stores.get(name)
        if store is not None:
            return store
        with self._lock:
            if name not in self._stores:
                self._stores[name] = _open_store(self._fs, bucket, range_header)
            return self._stores[name]


def _is_version(answer: "GetResult", etag: str) -> bool:
    return bare_etag(answer.meta["e_tag"] or "") == bare_etag(etag)


def _joined(answer: "GetResult", num_bytes: int, is_stopped: Callable[[], bool]) -> memoryview:
    """The bytes of an answer; fewer where nobody waits for them any more."""
    data, end = bytearray(num_bytes), 0
    for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
        data[end : end + len(chunk)] = chunk
        end += len(chunk)
        if is_stopped():
            break
    return memoryview(data)[:end]


def _beyond(first: int, chunks: Iterable[bytes]) -> Iterator[memoryview]:
    """What follows the first so many bytes."""
    for chunk in chunks:
        if first < len(chunk):
            yield memoryview(chunk)[first:]
        first = max(0, first - len(chunk))


def _after(end: bytes, chunks: Iterable[bytes]) -> Iterator[memoryview]:
    """What follows bytes that the chunks begin with; nothing where they begin with others."""
    for chunk in chunks:
        if not chunk.startswith(end):
            return
        yield memoryview(chunk)[len(end) :]
        end = b""


def _log_failure(path: str, error: Exception) -> None:
    log.debug("obstore could not read s3://%s, s3fs tries: %s: %.200s", path, type(error).__name__, error)


def _can_stand_in(fs: Any) -> bool:
    """Whether obstore is here, and s3fs was asked for nothing that obstore would do differently."""
    if find_spec("obstore") is None:
        return False
    special = fs.req_kw or fs.s3_additional_kwargs or fs.version_aware
    return (
        not special and set(fs.client_kwargs or {}) <= _KNOWN_CLIENT_OPTIONS and _s3_options(fs) <= {"addressing_style"}
    )


def _s3_options(fs: Any) -> set[str]:
    """Names of the S3 options of botocore's configuration that are set (acceleration, payload signing, ...)."""
    return {name for name, value in (fs.s3.meta.config.s3 or {}).items() if value is not None}


def _open_store(fs: Any, bucket: str, range_header: str) -> "S3Store":
    """A bucket as obstore sees it; each of its requests carries the header, if there is one."""
    from obstore.store import S3Store

    client = fs.s3.meta
    endpoint, is_virtual = _bucket_endpoint(client, bucket)
    credentials = fs.s3._request_signer._credentials
    anonymous = credentials is None or not isinstance(client.config.signature_version, str)
    config: S3Config = {
        "region": client.region_name or "us-east-1",
        "endpoint": endpoint,
        "virtual_hosted_style_request": is_virtual,
        "skip_signature": anonymous,
    }
    return S3Store(
        bucket,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=client.config.connect_timeout),
            "read_timeout": timedelta(seconds=client.config.read_timeout),
            "timeout": _STREAM_LASTS if range_header else _BLOCK_LASTS,
            "default_headers": {"Range": range_header} if range_header else {},
        },
        # A lost connection is asked for again by s3fs; obstore would go on in the middle of an answer.
        retry_config={"max_retries": 0},
        credential_provider=None if anonymous else _Credentials(fs, credentials),
    )


def _bucket_endpoint(client: Any, bucket: str) -> tuple[str, bool]:
    """Where a bucket is asked, and whether its name is part of the host: botocore's rules."""
    parts = urlsplit(client.endpoint_url)
    style = (client.config.s3 or {}).get("addressing_style") or "auto"
    is_amazon = (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if style == "virtual" or (style == "auto" and is_amazon and "." not in bucket):
        return f"{parts.scheme}://{bucket}.{parts.netloc}", True
    return client.endpoint_url.rstrip("/"), False


class _Credentials:
    """Gives obstore what s3fs's client signs with, fresh each time it asks."""

    def __init__(self, fs: Any, credentials: Any) -> None:
        self._loop, self._credentials = fs.loop, credentials

    def __call__(self) -> "S3Credential":
        wanted = asyncio.run_coroutine_threadsafe(self._credentials.get_frozen_credentials(), self._loop)
        frozen = wanted.result()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _CREDENTIALS_LAST,
        }
