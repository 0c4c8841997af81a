"""What S3 needs beyond fsspec's interface: reads of one version, bounded waits, reasons for refusals.

Functions take s3fs's filesystem and its path (``bucket/key``), and raise the backend's own errors unless they
say otherwise: ``filesystem.Location`` translates.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

from trainyard.tasks.artifacts.digests import CHUNK_BYTES
from trainyard.tasks.artifacts.fast_reads import OVERLAP_BYTES, FastReader
from trainyard.tasks.artifacts.objects import ObjectInfo, bare_etag, is_folder_marker
from trainyard.tasks.artifacts.read_ahead import Block, never, read_ahead, take_ahead
from trainyard.tasks.artifacts.s3_listing import checked_entry, checked_page
from trainyard.tasks.artifacts.storage_errors import (
    NoSuchKeyError,
    changed,
    cut_short,
    given_up,
    no_s3_server,
    odd_answer,
    other_bytes,
    timed_out,
    translated,
)
from trainyard.tasks.errors import StorageUnavailableError

BLOCK_BYTES = 8 * CHUNK_BYTES
"""Most bytes of one ranged read; an object up to this size comes in one answer."""
_CHUNKS_AHEAD = 7
"""Of an object that comes in one stream: a block, with the one that is in use."""

# botocore tries this often and s3fs repeats that: a dead endpoint is given up after 2 x 2 x 5 s, not minutes.
_ATTEMPTS = 2
# Reads of a version are repeated here, and by botocore, but not by s3fs. What is refused or lost is asked for so many
# times; a server that says nothing is not asked again after so many seconds. With obstore's read timeout before them,
# an object that stalls is an error after 45 s, a large one after up to twice that.
_BLOCK_ATTEMPTS = 3
_BLOCK_PATIENCE_S = 20
_BLOCK_PAUSE_S = 0.2
_LOOK_S = 0.25
"""How often a read that is waited for looks whether anybody still wants it."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/")
_CLIENT = {
    "connect_timeout": 5,
    "read_timeout": 15,
    "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
}


def is_s3(url: str) -> bool:
    """Whether a URL is an S3 address."""
    return url.startswith(("s3://", "s3a://"))


def client_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under which a dead endpoint is noticed, and a listing is never one remembered from before."""
    return {
        "use_listings_cache": False,
        **options,
        "config_kwargs": {**_CLIENT, **options.get("config_kwargs", {})},
    }


def bound_retries(fs: Any) -> None:
    """Let s3fs repeat a request once, not four times."""
    fs.retries = _ATTEMPTS


def raise_reason(fs: Any, path: str) -> None:
    """Ask again in a way that has a body: the answer to S3's HEAD says "403", never why."""
    bucket, key, _ = fs.split_path(path)
    if key:
        fs.call_s3("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")
    else:
        fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)


def read_small(fs: Any, path: str) -> Block | None:
    """An object that comes in one answer, in the version it has now; None where s3fs is to read it, or say why not."""
    reader = FastReader.of(fs)
    return reader.read_newest(path, BLOCK_BYTES) if reader else None


def find_object(fs: Any, path: str) -> Mapping[str, Any] | None:
    """The answer to a HEAD of an object; None where the path is a bucket, or a prefix with objects below it.

    Not s3fs's ``info``: to it, a listing that fails is a prefix that is not there.
    """
    bucket, key, _ = fs.split_path(path)
    if key:
        try:
            return head_object(fs, path)
        except FileNotFoundError as error:
            if not _list_one(fs, path, Bucket=bucket, Prefix=f"{key}/").get("Contents"):
                raise NoSuchKeyError(str(error)) from error
            return None
    _list_one(fs, path, Bucket=bucket)
    return None


def head_object(fs: Any, path: str) -> Mapping[str, Any]:
    """The answer to a HEAD of an object; where there is only a prefix, there is nothing."""
    bucket, key, _ = fs.split_path(path)
    answer = dict(_ask_or_reason(fs, path, "head_object", Bucket=bucket, Key=key))
    if not bare_etag(answer.get("ETag", "")):
        raise no_s3_server(f"s3://{path}", fs.s3.meta.endpoint_url)
    return answer


def _list_one(fs: Any, path: str, **query: object) -> Mapping[str, Any]:
    """The first object of a listing, in an answer that is S3's: another server's page has none of its elements."""
    answer: Mapping[str, Any] = fs.call_s3("list_objects_v2", MaxKeys=1, **query)
    if not {"Name", "IsTruncated"} & answer.keys():
        raise no_s3_server(f"s3://{path}", fs.s3.meta.endpoint_url)
    return checked_page(answer, path)


def _ask_or_reason(fs: Any, path: str, method: str, **query: object) -> Mapping[str, Any]:
    try:
        answer: Mapping[str, Any] = fs.call_s3(method, **query)
    except FileNotFoundError:
        raise
    except OSError:
        raise_reason(fs, path)
        raise
    return answer


def first_object(fs: Any, path: str) -> ObjectInfo | None:
    """Some object below a prefix, from one page of its listing."""
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key}/" if key else ""
    page = checked_page(fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=100), path)
    for found in page.get("Contents", []):
        checked_entry(found, path)
        if not is_folder_marker(found["Key"], found["Size"]):
            return ObjectInfo.from_listing(found["Key"][len(prefix) :], found)
    return None


def swap_object(fs: Any, path: str, data: bytes, etag: str | None) -> ObjectInfo | None:
    """Write an object on the condition that it has an ETag, or that there is none; None where another writer is at it.

    A server that knows no conditions is asked for the version before.
    """
    bucket, key, _ = fs.split_path(path)
    try:
        found = f'"{bare_etag(head_object(fs, path)["ETag"])}"'
    except FileNotFoundError:
        found = None
    if found != etag:
        return None
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    answer = fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
    version = bare_etag(answer.get("ETag", ""))
    if not version:
        raise odd_answer(f"s3://{path}", "without an ETag")
    return ObjectInfo(key.rsplit("/", 1)[-1], len(data), version, f'"{version}"')


def read_whole(
    fs: Any, path: str, info: ObjectInfo, url: str, is_stopped: Callable[[], bool] = never, *, fast: bool
) -> Block:
    """The bytes of one version of an object of at most ``BLOCK_BYTES``; raises as ``read_blocks``."""
    wanted = _Wanted(fs, path, info, url, is_stopped)
    return _read_block(wanted, FastReader.of(fs) if fast else None, 0, info.num_bytes)


def read_blocks(
    fs: Any,
    path: str,
    info: ObjectInfo,
    url: str,
    is_stopped: Callable[[], bool] = never,
    first: int = 0,
    *,
    fast: bool,
) -> Iterator[Block]:
    """The bytes of one version of an object, in ranged reads that each carry ``If-Match``, some of them ahead.

    Args:
        fs: The filesystem.
        path: ``bucket/key``.
        info: The version.
        url: What is read, for messages.
        is_stopped: Whether nobody waits for it any more.
        first: The first byte to read.
        fast: Whether obstore may read.

    Raises:
        ObjectChangedError: An answer was of another version.
        StorageUnavailableError: An answer was cut short, several times; or nobody waits for it any more.
    """
    reader = FastReader.of(fs) if fast else None
    etag = info.etag or ""
    wanted = _Wanted(fs, path, info, url, is_stopped)

    def read(start: int) -> Block:
        return _read_block(wanted, reader, start, min(start + BLOCK_BYTES, info.num_bytes))

    position = first
    if reader and position < info.num_bytes and not reader.gives_ranges(path, etag):
        stream = reader.stream(path, etag, info.num_bytes, first, _bytes_before(wanted, first))
        for chunk in take_ahead(stream, _CHUNKS_AHEAD):
            position += len(chunk)
            yield chunk
        reader = None  # what is missing is left to s3fs
    yield from read_ahead(range(position, info.num_bytes, BLOCK_BYTES), read)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One version of an object that is read, and whether somebody still waits for it."""

    fs: Any
    path: str
    info: ObjectInfo
    url: str
    is_stopped: Callable[[], bool]

    def is_all(self, start: int, end: int) -> bool:
        """Whether these bytes are the whole object."""
        return (start, end) == (0, self.info.num_bytes)


def _bytes_before(wanted: _Wanted, first: int) -> bytes:
    """Some bytes before one, as s3fs reads them; none where the server knows no ranges."""
    try:
        return bytes(_read_block(wanted, None, max(0, first - OVERLAP_BYTES), first)) if first else b""
    except StorageUnavailableError:
        return b""


def _read_block(wanted: _Wanted, reader: FastReader | None, start: int, end: int) -> Block:
    """One read, proven to be of the listed version; what obstore cannot give, s3fs gives."""
    if reader is None:
        return _read_block_slowly(wanted, start, end)
    is_whole = wanted.is_all(start, end)
    fast = reader.read(wanted.path, wanted.info.etag or "", (start, end), wanted.is_stopped, is_whole=is_whole)
    data = _read_block_slowly(wanted, start, end) if fast is None else fast
    reader.count(failed=fast is None)
    return data


def _read_block_slowly(wanted: _Wanted, start: int, end: int) -> bytes:
    began = time.monotonic()
    for attempt in range(1, _BLOCK_ATTEMPTS + 1):
        if wanted.is_stopped():
            raise given_up(wanted.url)
        try:
            with translated(wanted.url):
                return _wait(wanted, _get_object(wanted, start, end))
        except StorageUnavailableError as error:
            is_silent = timed_out(error) and time.monotonic() - began > _BLOCK_PATIENCE_S
            if attempt == _BLOCK_ATTEMPTS or is_silent:
                raise
            time.sleep(_BLOCK_PAUSE_S * attempt)
    raise AssertionError("the last attempt returns or raises")


def _wait(wanted: _Wanted, answer: Coroutine[Any, Any, bytes]) -> bytes:
    """What s3fs's loop reads; that is stopped where nobody waits for it any more."""
    future = asyncio.run_coroutine_threadsafe(answer, wanted.fs.loop)
    while not wait((future,), _LOOK_S).done:
        if wanted.is_stopped():
            future.cancel()
            raise given_up(wanted.url)
    return future.result()


async def _get_object(wanted: _Wanted, start: int, end: int) -> bytes:
    """One answer; nothing of it is read before it says that it is what was asked for, and never more than that."""
    fs = wanted.fs
    bucket, key, _ = fs.split_path(wanted.path)
    await fs.set_session()
    client = await fs.get_s3(bucket)
    query = {"Bucket": bucket, "Key": key, "IfMatch": wanted.info.etag}
    if not wanted.is_all(start, end):
        query["Range"] = f"bytes={start}-{end - 1}"
    answer = await client.get_object(**fs._get_s3_method_kwargs(client.get_object, **query))
    async with answer["Body"] as body:
        _require_wanted(answer, wanted, start, end)
        pieces, missing = [], end - start + 1  # one more, which is the end, where the server's checksum is compared
        while missing and (piece := await body.read(missing)):
            pieces.append(piece)
            missing -= len(piece)
    if missing != 1:
        raise cut_short(wanted.url, end - start, end - start + 1 - missing)
    return b"".join(pieces)


def _require_wanted(answer: Mapping[str, Any], wanted: _Wanted, start: int, end: int) -> None:
    etag = answer.get("ETag")
    if not etag:
        raise odd_answer(wanted.url, "without an ETag")
    if bare_etag(etag) != wanted.info.version:  # some servers ignore If-Match: rclone's, for one
        raise changed(wanted.url)
    told = answer.get("ContentRange", "")
    found = _CONTENT_RANGE.match(told)
    if found and (int(found[1]), int(found[2]) + 1) != (start, end):
        raise other_bytes(wanted.url, f"bytes {start}-{end - 1}", told)
    num_bytes = answer.get("ContentLength", end - start)
    if num_bytes != end - start:
        raise cut_short(wanted.url, end - start, num_bytes)
