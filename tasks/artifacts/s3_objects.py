"""What S3 needs beyond fsspec's interface: reads of one version, bounded waits, reasons for refusals.

Functions take s3fs's filesystem and its path (``bucket/key``), and raise the backend's own errors unless they
say otherwise: ``filesystem.Location`` translates.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

from trainyard.tasks.artifacts.digests import CHUNK_BYTES
from trainyard.tasks.artifacts.fast_reads import FastReader
from trainyard.tasks.artifacts.objects import ObjectInfo, bare_etag, is_folder_marker
from trainyard.tasks.artifacts.read_ahead import Block, read_ahead, take_ahead
from trainyard.tasks.artifacts.storage_errors import NoSuchKeyError, changed, cut_short, no_s3_server, translated
from trainyard.tasks.errors import StorageUnavailableError

BLOCK_BYTES = 8 * CHUNK_BYTES
"""Most bytes of one ranged read; an object up to this size comes in one answer."""
_CHUNKS_AHEAD = 7
"""Of an object that comes in one stream: a block, with the one that is in use."""

# botocore tries this often and s3fs repeats that: a dead endpoint is given up after 2 x 2 x 5 s, not minutes.
_ATTEMPTS = 2
_BLOCK_ATTEMPTS = 3
_BLOCK_PAUSE_S = 0.2
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
    if not answer.get("ETag"):
        raise no_s3_server(f"s3://{path}", fs.s3.meta.endpoint_url)
    return answer


def _list_one(fs: Any, path: str, **query: object) -> Mapping[str, Any]:
    """The first object of a listing, in an answer that is S3's: another server's page has none of its elements."""
    answer: Mapping[str, Any] = fs.call_s3("list_objects_v2", MaxKeys=1, **query)
    if not {"Name", "IsTruncated"} & answer.keys():
        raise no_s3_server(f"s3://{path}", fs.s3.meta.endpoint_url)
    return answer


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
    for found in fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=100).get("Contents", []):
        if not is_folder_marker(found["Key"], found["Size"]):
            return ObjectInfo.from_listing(found["Key"][len(prefix) :], found)
    return None


def swap_object(fs: Any, path: str, data: bytes, etag: str | None) -> ObjectInfo | None:
    """Write an object on the condition that it has an ETag, or that there is none; None where another writer is at it.

    A server that knows no conditions is asked for the version before.
    """
    bucket, key, _ = fs.split_path(path)
    try:
        found = fs.call_s3("head_object", Bucket=bucket, Key=key)["ETag"]
    except FileNotFoundError:
        found = None
    if found != etag:
        return None
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    answer = fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
    version = bare_etag(answer["ETag"])
    return ObjectInfo(key.rsplit("/", 1)[-1], len(data), version, f'"{version}"')


def read_whole(fs: Any, path: str, info: ObjectInfo, url: str, *, fast: bool) -> Block:
    """The bytes of one version of an object of at most ``BLOCK_BYTES``; raises as ``read_blocks``."""
    return _read_block(fs, FastReader.of(fs) if fast else None, path, info, 0, info.num_bytes, url)


def read_blocks(fs: Any, path: str, info: ObjectInfo, url: str, first: int = 0, *, fast: bool) -> Iterator[Block]:
    """The bytes of one version of an object, in ranged reads that each carry ``If-Match``, some of them ahead.

    Args:
        fs: The filesystem.
        path: ``bucket/key``.
        info: The version.
        url: What is read, for messages.
        first: The first byte to read.
        fast: Whether obstore may read.

    Raises:
        ObjectChangedError: An answer was of another version.
        StorageUnavailableError: An answer was cut short, several times.
    """
    reader = FastReader.of(fs) if fast else None
    etag = info.etag or ""

    def read(start: int) -> Block:
        return _read_block(fs, reader, path, info, start, min(start + BLOCK_BYTES, info.num_bytes), url)

    position = first
    if reader and position < info.num_bytes and not reader.gives_ranges(path, etag):
        for chunk in take_ahead(reader.stream(path, etag, info.num_bytes, first), _CHUNKS_AHEAD):
            position += len(chunk)
            yield chunk
        reader = None  # what is missing is left to s3fs
    yield from read_ahead(range(position, info.num_bytes, BLOCK_BYTES), read)


def _read_block(
    fs: Any, reader: FastReader | None, path: str, info: ObjectInfo, start: int, end: int, url: str
) -> Block:
    """One read, proven to be of the listed version; what obstore cannot give, s3fs gives."""
    byte_range = (start, end) if (start, end) != (0, info.num_bytes) else None
    fast = reader.read(path, info.etag or "", byte_range) if reader else None
    is_right = fast is not None and bare_etag(fast[1]) == info.version and len(fast[0]) == end - start
    data = fast[0] if fast and is_right else _read_block_slowly(fs, path, info, start, end, url)
    if reader:
        reader.count(failed=not is_right)
    return data


def _read_block_slowly(fs: Any, path: str, info: ObjectInfo, start: int, end: int, url: str) -> bytes:
    byte_range = {"Range": f"bytes={start}-{end - 1}"} if (start, end) != (0, info.num_bytes) else {}
    for attempt in range(1, _BLOCK_ATTEMPTS + 1):
        try:
            with translated(url):
                answer = _get_object(fs, path, info.etag, byte_range)
                data, etag = asyncio.run_coroutine_threadsafe(answer, fs.loop).result()
            if bare_etag(etag) != info.version:  # some servers ignore If-Match: rclone's, for one
                raise changed(url)
            if len(data) != end - start:
                raise cut_short(url, end - start, len(data))
            return data
        except StorageUnavailableError:
            if attempt == _BLOCK_ATTEMPTS:
                raise
            time.sleep(_BLOCK_PAUSE_S * attempt)
    raise AssertionError("the last attempt returns or raises")


async def _get_object(fs: Any, path: str, etag: str | None, byte_range: Mapping[str, str]) -> tuple[bytes, str]:
    bucket, key, _ = fs.split_path(path)
    answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, IfMatch=etag, **byte_range)
    async with answer["Body"] as body:
        return bytes(await body.read()), str(answer["ETag"])
