"""Digests of bytes, files and values: SHA-256 (FIPS 180-4), written as 64 hexadecimal digits."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

CHUNK_BYTES = 1 << 20


def digest_bytes(data: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_chunks(chunks: "Iterable[bytes | memoryview]") -> tuple[str, int]:
    """SHA-256 and length in bytes of a stream of chunks."""
    hasher, num_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        num_bytes += len(chunk)
    return hasher.hexdigest(), num_bytes


def read_chunks(stream: IO[bytes]) -> Iterable[bytes]:
    """The rest of a stream, a mebibyte at a time."""
    return iter(lambda: stream.read(CHUNK_BYTES), b"")


def digest_file(path: Path, tick: Callable[[], None] | None = None) -> tuple[str, int]:
    """SHA-256 and size in bytes of a file.

    Args:
        path: The file.
        tick: Called with each mebibyte.
    """
    with path.open("rb") as stream:
        chunks = read_chunks(stream)
        return digest_chunks(chunks if tick is None else _with_ticks(chunks, tick))


def _with_ticks(chunks: Iterable[bytes], tick: Callable[[], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        tick()


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8 (the rules of RFC 8785 that we need).

    Raises:
        TypeError: The value holds something that JSON cannot express.
        ValueError: The value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_value(value: Any) -> str:
    """SHA-256 of a value's canonical JSON; raises as ``canonical_json`` does."""
    return digest_bytes(canonical_json(value))
