"""What S3 needs beyond fsspec's interface: reads of one version, bounded waits, reasons for refusals.

Functions take s3fs's filesystem and its path (``bucket/key``), and raise the backend's own errors unless they
say otherwise: ``filesystem.Location`` translates.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from trainyard.tasks.artifacts.digests import CHUNK_BYTES
from trainyard.tasks.artifacts.objects import ObjectInfo, bare_etag, is_folder_marker
from trainyard.tasks.artifacts.storage_errors import changed, cut_short, translated
from trainyard.tasks.errors import StorageUnavailableError

BLOCK_BYTES = 8 * CHUNK_BYTES
"""Most bytes of one ranged read; an object up to this size comes in one answer."""

# botocore tries this often and s3fs repeats that: a dead endpoint is given up after 2 x 2 x 5 s, not minutes.
_ATTEMPTS = 2
_BLOCK_ATTEMPTS = 3
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


def first_object(fs: Any, path: str) -> ObjectInfo | None:
    """Some object below a prefix, from one page of its listing."""
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key}/" if key else ""
    for found in fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=100).get("Contents", []):
        if not is_folder_marker(found["Key"], found["Size"]):
            return ObjectInfo.from_listing(found["Key"][len(prefix) :], found)
    return None


def read_blocks(fs: Any, path: str, info: ObjectInfo, url: str) -> Iterator[bytes]:
    """The bytes of one version of an object, in ranged reads that each carry ``If-Match``.

    Raises:
        ObjectChangedError: An answer was of another version.
        StorageUnavailableError: An answer was cut short, several times.
    """
    if info.num_bytes <= BLOCK_BYTES:
        yield _read_block(fs, path, info, info.num_bytes, {}, url)
        return
    for start in range(0, info.num_bytes, BLOCK_BYTES):
        end = min(start + BLOCK_BYTES, info.num_bytes)
        yield _read_block(fs, path, info, end - start, {"Range": f"bytes={start}-{end - 1}"}, url)


def _read_block(fs: Any, path: str, info: ObjectInfo, num_bytes: int, byte_range: Mapping[str, str], url: str) -> bytes:
    """One ranged read, proven to be of the listed version; a lost connection is tried again."""
    for attempt in range(1, _BLOCK_ATTEMPTS + 1):
        try:
            with translated(url):
                answer = _get_object(fs, path, info.etag, byte_range)
                data, etag = asyncio.run_coroutine_threadsafe(answer, fs.loop).result()
            if bare_etag(etag) != info.version:  # some servers ignore If-Match: rclone's, for one
                raise changed(url)
            if len(data) != num_bytes:
                raise cut_short(url, num_bytes, len(data))
            return data
        except StorageUnavailableError:
            if attempt == _BLOCK_ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


async def _get_object(fs: Any, path: str, etag: str | None, byte_range: Mapping[str, str]) -> tuple[bytes, str]:
    bucket, key, _ = fs.split_path(path)
    answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, IfMatch=etag, **byte_range)
    async with answer["Body"] as body:
        return bytes(await body.read()), str(answer["ETag"])
